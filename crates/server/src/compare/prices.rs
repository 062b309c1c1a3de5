//! What tokens cost: a table that the operator provides. Prices change, so none are built in.

use std::path::Path;

use serde::Deserialize;

use super::answer::Tokens;
use crate::exit::Exit;

/// The table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// When the prices held; printed beside every cost.
    #[serde(default)]
    pub date: String,
    /// The first that fits counts.
    #[serde(default, rename = "model")]
    models: Vec<Price>,
}

/// For a million tokens, in whatever currency the operator pays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    /// A model's name; a `*` at its end stands for anything.
    name: String,
    input: f64,
    output: f64,
    #[serde(default)]
    cache_write: Option<f64>,
    #[serde(default)]
    cache_read: Option<f64>,
}

const MILLION: f64 = 1e6;

impl Prices {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Self, Exit> {
        let wrong = |what: String| Exit::usage(format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        toml::from_str(&text).map_err(|error| wrong(error.to_string()))
    }

    /// What these tokens cost; nothing is said of a model that is not in the table, nor of tokens whose price is not.
    pub fn cost(&self, model: &str, tokens: Tokens) -> Option<f64> {
        let names = |price: &&Price| match price.name.strip_suffix('*') {
            Some(start) => model.starts_with(start),
            None => model == price.name,
        };
        let price = self.models.iter().find(names)?;
        let part = |count: u64, price: Option<f64>| match count {
            0 => Some(0.0),
            // Counts of tokens are far below what a double holds.
            count => price.map(|price| count as f64 * price / MILLION),
        };
        let cached = part(tokens.cache_write, price.cache_write)? + part(tokens.cache_read, price.cache_read)?;
        Some(part(tokens.input, Some(price.input))? + part(tokens.output, Some(price.output))? + cached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_told_where_every_price_is_known() {
        let table = "date = '2026-11-01'\n[[model]]\nname = 'a*'\ninput = 2.0\noutput = 10.0\ncache_read = 0.5\n";
        let prices: Prices = toml::from_str(table).expect("a table");
        let tokens = Tokens { input: 1_000_000, output: 100_000, cache_write: 0, cache_read: 2_000_000 };
        assert_eq!(prices.cost("abc", tokens), Some(4.0));
        assert_eq!(prices.cost("bc", tokens), None);
        assert_eq!(prices.cost("abc", Tokens { cache_write: 1, ..tokens }), None);
        assert!(toml::from_str::<Prices>("[[model]]\nname = 'a'\ninput = 1\noutput = 1\nper_call = 2\n").is_err());
    }
}
