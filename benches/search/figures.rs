//! How figures are printed.

/// One line with both sides and the ratio.
pub fn print_ratio(what: &str, ours: (f64, &str), theirs: (f64, &str), bounds: &str) {
    let (ratio, unit) = (ours.0 / theirs.0, ours.1);
    println!("{what}: {:.2} {unit} | {}: {:.2} {unit} | ratio {ratio:.2} ({bounds})", ours.0, theirs.1, theirs.0);
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
