//! What this process has on the host, to be compared before and after.
