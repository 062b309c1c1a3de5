//! Rows on standard output, as they come: in columns for people, or as one JSON document.
//!
//! Nothing is kept but the rows that decide how wide the columns are; so a listing of any length takes no more memory than a short one.

use std::io::{BufWriter, Stdout, Write as _};

use serde_json::Value;

use super::unwritten;
use crate::exit::Exit;

/// Rows that are looked at before the first is written.
const ROWS_MEASURED: usize = 200;
/// Between columns.
const GAP: &str = "  ";

/// Where rows go.
pub(super) struct Out {
    out: BufWriter<Stdout>,
    form: Form,
}

enum Form {
    Json { rows: u64 },
    Table(Table),
}

#[derive(Default)]
struct Table {
    head: Vec<String>,
    waiting: Vec<Vec<String>>,
    /// Once it is decided.
    widths: Option<Vec<usize>>,
}

impl Out {
    pub(super) fn new(json: bool) -> Self {
        let form = if json { Form::Json { rows: 0 } } else { Form::Table(Table::default()) };
        Self { out: BufWriter::new(std::io::stdout()), form }
    }

    /// Names the columns.
    pub(super) fn columns<const N: usize>(&mut self, names: [&str; N]) {
        if let Form::Table(table) = &mut self.form {
            table.head = names.map(str::to_owned).to_vec();
        }
    }

    /// One row, in the form that is asked for.
    pub(super) fn row<const N: usize>(
        &mut self,
        cells: impl FnOnce() -> [String; N],
        json: impl FnOnce() -> Value,
    ) -> Result<(), Exit> {
        match &mut self.form {
            Form::Json { rows } => {
                let before = if *rows == 0 { "{\"data\":[\n" } else { ",\n" };
                *rows += 1;
                write!(self.out, "{before}{}", json()).map_err(unwritten)
            }
            Form::Table(_) => self.more(cells),
        }
    }

    /// One more row for what the last one was about. In JSON it is part of that.
    pub(super) fn more<const N: usize>(&mut self, cells: impl FnOnce() -> [String; N]) -> Result<(), Exit> {
        let Form::Table(table) = &mut self.form else { return Ok(()) };
        let cells = cells().map(|cell| printable(&cell)).to_vec();
        if let Some(widths) = &table.widths {
            return write_row(&mut self.out, widths, &cells);
        }
        table.waiting.push(cells);
        if table.waiting.len() == ROWS_MEASURED { table.release(&mut self.out) } else { Ok(()) }
    }

    /// After the last row.
    pub(super) fn end(mut self) -> Result<(), Exit> {
        match &mut self.form {
            Form::Json { rows: 0 } => self.out.write_all(b"{\"data\":[]}\n").map_err(unwritten)?,
            Form::Json { .. } => self.out.write_all(b"\n]}\n").map_err(unwritten)?,
            Form::Table(table) => table.release(&mut self.out)?,
        }
        self.out.flush().map_err(unwritten)
    }
}

impl Table {
    /// Decides how wide columns are, and writes what waits for that.
    fn release(&mut self, out: &mut BufWriter<Stdout>) -> Result<(), Exit> {
        if self.widths.is_some() {
            return Ok(());
        }
        let rows: Vec<_> = std::iter::once(std::mem::take(&mut self.head)).chain(self.waiting.drain(..)).collect();
        let columns = rows.first().map_or(0, Vec::len);
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        rows.iter().try_for_each(|row| write_row(out, &widths, row))?;
        self.widths = Some(widths);
        Ok(())
    }
}

fn write_row(out: &mut BufWriter<Stdout>, widths: &[usize], cells: &[String]) -> Result<(), Exit> {
    let padded: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    writeln!(out, "{}", padded.join(GAP).trim_end()).map_err(unwritten)
}

/// Names that somebody else has chosen are not written to a terminal as they are.
pub(super) fn printable(text: &str) -> String {
    let odd = |c: char| c.is_control() || c.escape_debug().count() > 1 && !matches!(c, '"' | '\'' | '\\');
    text.chars().map(|c| if odd(c) { c.escape_debug().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_terminal_is_written_out() {
        assert_eq!(printable("Zoë's \"a\\b\".csv"), "Zoë's \"a\\b\".csv");
        assert_eq!(printable("a\u{1b}[2Jb\n\u{202e}c"), "a\\u{1b}[2Jb\\n\\u{202e}c");
    }
}
