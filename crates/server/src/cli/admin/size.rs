//! Sizes for people.

/// `0 B`, `1.5 KiB`, `20 GiB`: three digits are enough to see what is large.
pub(super) fn readable(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    // In tenths, so that no float has to be trusted.
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    let (whole, tenth) = (tenths / 10, tenths % 10);
    let name = UNITS[unit];
    if unit == 0 || whole >= 100 || tenth == 0 { format!("{whole} {name}") } else { format!("{whole}.{tenth} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1 MiB"),
            (500 * 1024 * 1024, "500 MiB"),
            (1024_u64.pow(4), "1 TiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(readable(bytes), text, "{bytes}");
        }
    }
}
