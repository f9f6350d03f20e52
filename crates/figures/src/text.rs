//! Numbers and HTML as text.

/// A count with its thousands separated: `3,255,233`.
pub fn thousands(n: usize) -> String {
    grouped(&n.to_string())
}

/// Digits in groups of three, from the right.
pub(crate) fn grouped(digits: &str) -> String {
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

/// A number of any magnitude for an alt text: two decimals, or an exponent where these would say little.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0 | 0.01..1e4 => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    }
}

/// Text that stands in HTML, in an attribute too.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_at_any_magnitude() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(3_255_233), "3,255,233");
        assert_eq!(short(0.0), "0.00");
        assert_eq!(short(-12.345), "-12.35");
        assert_eq!(short(1.5e-8), "1.50e-8");
        assert_eq!(short(2e12), "2.00e12");
    }
}
