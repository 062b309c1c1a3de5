//! From the wire's history to the plain dialect.
