//! The table of a network's layers.

use std::fmt;

use figures::{Output, table, thousands};

use super::named_layer::NamedLayer;

/// The table of a network's layers. Shown by a notebook as a table, printed as text elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// One row for each layer, from input to output.
    pub rows: Vec<SummaryRow>,
}

/// One layer's row in a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// The layer's name.
    pub name: String,
    /// The kind of layer.
    pub kind: &'static str,
    /// What comes out, as Keras writes it: `(None, 28, 28, 16)`.
    pub output_shape: String,
    /// How many parameters the layer holds.
    pub parameters: usize,
    /// Whether training may change them.
    pub trainable: bool,
}

impl Summary {
    /// The table of these layers.
    pub fn of(layers: &[NamedLayer]) -> Summary {
        let rows = layers.iter().map(|layer| SummaryRow {
            name: layer.name.clone(),
            kind: layer.kind,
            output_shape: shape_text(&layer.output_shape),
            parameters: layer.parameters(),
            trainable: layer.is_trainable(),
        });
        Summary {
            rows: rows.collect(),
        }
    }

    /// All parameters.
    pub fn total(&self) -> usize {
        self.rows.iter().map(|row| row.parameters).sum()
    }

    /// The parameters that training may change.
    pub fn trainable(&self) -> usize {
        self.rows
            .iter()
            .filter(|row| row.trainable)
            .map(|row| row.parameters)
            .sum()
    }

    fn totals(&self) -> String {
        let (total, trainable) = (self.total(), self.trainable());
        let numbers = [total, trainable, total - trainable].map(thousands);
        format!(
            "Total parameters: {} (trainable: {}, frozen: {})",
            numbers[0], numbers[1], numbers[2]
        )
    }

    /// The summary as a table.
    pub fn output(&self) -> Output {
        let cells = |row: &SummaryRow| {
            vec![
                format!("{} ({})", row.name, row.kind),
                row.output_shape.clone(),
                thousands(row.parameters),
                row.trainable_text().to_owned(),
            ]
        };
        let rows: Vec<Vec<String>> = self.rows.iter().map(cells).collect();
        let head = ["Layer (type)", "Output shape", "Parameters", "Trainable"];
        table(&head, rows, &self.totals())
    }

    /// Shows the table in a notebook.
    pub fn evcxr_display(&self) {
        self.output().evcxr_display();
    }
}

impl SummaryRow {
    fn trainable_text(&self) -> &'static str {
        match (self.parameters, self.trainable) {
            (0, _) => "–",
            (_, true) => "yes",
            (_, false) => "frozen",
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.output().fmt(f)
    }
}

fn shape_text(shape: &[i64]) -> String {
    let sizes: Vec<String> = shape.iter().map(|size| thousands(*size as usize)).collect();
    format!("(None, {})", sizes.join(", "))
}
