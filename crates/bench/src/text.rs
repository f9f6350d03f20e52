//! Numbers and tables for a terminal.

use serde_json::{Map, Value};

use crate::race::EPOCHS;

/// A number with as many digits as say something: `2010`, `14.2`, `0.118`. Only a race is ever endless.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size.is_infinite() => format!("never within {EPOCHS} epochs"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The rows of a table, in columns: first what was measured, then what came out.
pub fn grid(rows: &Value) -> Vec<String> {
    let Some(rows) = rows.as_array() else {
        return vec![format!("  {}", row_cell(rows))];
    };
    let rows: Vec<&Map<String, Value>> = rows.iter().filter_map(Value::as_object).collect();
    let mut names: Vec<&String> = rows.iter().flat_map(|row| row.keys()).collect();
    names.sort_by_key(|name| (rank(rows.first().and_then(|row| row.get(*name))), *name));
    names.dedup();
    let head: Vec<String> = names.iter().map(|name| name.replace('_', " ")).collect();
    let cells = |row: &&Map<String, Value>| -> Vec<String> {
        let cell = |name: &&String| row.get(*name).map_or(String::new(), row_cell);
        names.iter().map(cell).collect()
    };
    let lines: Vec<Vec<String>> = [head].into_iter().chain(rows.iter().map(cells)).collect();
    let widths: Vec<usize> = (0..names.len())
        .map(|at| lines.iter().map(|line| line[at].len()).max().unwrap_or(0))
        .collect();
    let text = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths);
        let cells = cells.map(|(cell, &width)| format!("  {cell:>width$}"));
        cells.collect::<String>()
    };
    lines.iter().map(text).collect()
}

/// Words stand before whole numbers, those before others.
fn rank(value: Option<&Value>) -> u8 {
    match value {
        Some(Value::String(_)) => 0,
        Some(Value::Number(number)) if !number.is_f64() => 1,
        Some(Value::Array(_)) => 3,
        _ => 2,
    }
}

fn row_cell(value: &Value) -> String {
    match value {
        Value::Number(n) if n.is_f64() => number(n.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(row_cell).collect::<Vec<_>>().join(" + "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_lines_up() {
        let rows = json!([{"batch": 8, "contender": "ours", "rate": 700.5}, {"batch": 128, "contender": "ours", "rate": 2010.0}]);
        let expected = [
            "  contender  batch  rate",
            "       ours      8   700",
            "       ours    128  2010",
        ];
        assert_eq!(grid(&rows), expected);
        assert!(grid(&json!({"absent": "why"}))[0].contains("why"));
    }

    #[test]
    fn numbers_have_as_many_digits_as_say_something() {
        let texts = [2010.4, 14.23, 0.11849, f64::INFINITY].map(number);
        assert_eq!(texts, ["2010", "14.2", "0.118", "never within 6 epochs"]);
    }
}
