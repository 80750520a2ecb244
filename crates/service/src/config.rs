//! Layered configuration: defaults < file < environment < flags, with every problem found at once.
//!
//! The defaults are a complete, documented TOML file. It is also the schema: a key that it does not have is unknown, and
//! a value must have the type of its default. So nothing is spelled twice, and `print-defaults` prints the whole truth.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Something wrong with the configuration, where it came from and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: a file, an environment variable, a flag.
    pub source: String,
    /// What.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.message)
    }
}

/// A configuration under construction.
#[derive(Debug)]
pub struct Layers {
    defaults: Table,
    values: Table,
    origins: BTreeMap<String, String>,
    skipped: Vec<&'static str>,
    problems: Vec<Problem>,
}

/// The prefix of environment variables: `WHARF__SECTION__KEY`.
const PREFIX: &str = "WHARF__";

impl Layers {
    /// Begins with the defaults.
    pub fn new(defaults: &str) -> Self {
        let mut layers = Self {
            defaults: Table::new(),
            values: Table::new(),
            origins: BTreeMap::new(),
            skipped: Vec::new(),
            problems: Vec::new(),
        };
        match defaults.parse::<Table>() {
            Ok(table) => {
                layers.defaults.clone_from(&table);
                layers.values = table;
            }
            Err(error) => layers.problem("built-in defaults", error.message().to_owned()),
        }
        layers
    }

    /// Changes a default, for a process that differs from the documented ones.
    pub fn default(&mut self, path: &str, value: &str) {
        for table in [&mut self.defaults, &mut self.values] {
            if let Some(slot) = find(table, path) {
                *slot = Value::String(value.to_owned());
            }
        }
    }

    /// Leaves sections (or keys outside of sections) out: what stands in them is another process's business, so
    /// nothing in them is read and nothing is wrong with them.
    pub fn skip(&mut self, sections: &[&'static str]) {
        self.skipped.extend(sections);
    }

    fn is_skipped(&self, path: &str) -> bool {
        let section = path.split('.').next().unwrap_or(path);
        self.skipped.contains(&section)
    }

    /// Adds a problem found elsewhere.
    pub fn problem(&mut self, source: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { source: source.into(), message: message.into() });
    }

    /// Lays a TOML file over what there is.
    pub fn file(&mut self, name: &str, text: &str) {
        match text.parse::<Table>() {
            Ok(table) => self.lay(name, "", &table),
            Err(error) => {
                let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
                self.problem(format!("{name}, line {line}"), error.message().to_owned());
            }
        }
    }

    fn lay(&mut self, source: &str, path: &str, table: &Table) {
        for (key, value) in table {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if self.is_skipped(&path) {
                continue;
            }
            match (value, self.get(&path)) {
                (Value::Table(inner), Some(Value::Table(_))) => self.lay(source, &path, inner),
                (_, Some(_)) => self.set(source, &path, value.clone()),
                (_, None) => self.unknown(source, &path),
            }
        }
    }

    /// Lays one environment variable or flag over what there is; its text is read as the type of the default.
    pub fn text(&mut self, source: &str, path: &str, text: &str) {
        if self.is_skipped(path) {
            return;
        }
        let Some(current) = self.get(path) else { return self.unknown(source, path) };
        let parsed = match current {
            Value::Integer(_) => text.trim().parse().map(Value::Integer).map_err(|_| "a whole number"),
            Value::Boolean(_) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(Value::Boolean(true)),
                "false" | "0" | "no" | "off" => Ok(Value::Boolean(false)),
                _ => Err("true or false"),
            },
            Value::Array(_) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(Value::Array(parts.map(|part| Value::String(part.to_owned())).collect()))
            }
            Value::Table(_) => Err("a key of this section, not the section itself"),
            _ => Ok(Value::String(text.to_owned())),
        };
        match parsed {
            Ok(value) => self.set(source, path, value),
            Err(wanted) => self.problem(source, format!("`{path}` must be {wanted}")),
        }
    }

    /// Lays all `WHARF__SECTION__KEY` variables over what there is. Empty ones count as not set.
    pub fn environment(&mut self, variables: &BTreeMap<String, String>) {
        for (name, text) in variables.iter().filter(|(_, text)| !text.is_empty()) {
            if let Some(rest) = name.strip_prefix(PREFIX) {
                self.text(name, &rest.to_ascii_lowercase().replace("__", "."), text);
            }
        }
    }

    fn set(&mut self, source: &str, path: &str, value: Value) {
        let Some(slot) = self.slot(path) else { return self.unknown(source, path) };
        if slot.type_str() != value.type_str() {
            let wanted = slot.type_str();
            return self.problem(source, format!("`{path}` must be of type {wanted}, not {}", value.type_str()));
        }
        *slot = value;
        self.origins.insert(path.to_owned(), source.to_owned());
    }

    fn unknown(&mut self, source: &str, path: &str) {
        let close = self.paths().into_iter().min_by_key(|known| distance(known, path));
        let hint = close.filter(|known| distance(known, path) <= 3).map_or_else(
            || "`wharf config print-defaults` lists all keys".to_owned(),
            |known| format!("did you mean `{known}`?"),
        );
        self.problem(source, format!("unknown key `{path}`; {hint}"));
    }

    fn get(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let mut value = self.values.get(parts.next()?)?;
        for part in parts {
            value = value.as_table()?.get(part)?;
        }
        Some(value)
    }

    fn slot(&mut self, path: &str) -> Option<&mut Value> {
        find(&mut self.values, path)
    }

    fn paths(&self) -> Vec<String> {
        fn walk(prefix: &str, table: &Table, paths: &mut Vec<String>) {
            for (key, value) in table {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                match value {
                    Value::Table(inner) => walk(&path, inner, paths),
                    _ => paths.push(path),
                }
            }
        }
        let mut paths = Vec::new();
        walk("", &self.values, &mut paths);
        paths
    }

    /// Where a value comes from; `default` unless something was laid over it.
    pub fn origin(&self, path: &str) -> &str {
        self.origins.get(path).map_or("default", String::as_str)
    }

    /// Whether something was laid over the default.
    pub fn is_set(&self, path: &str) -> bool {
        self.origins.contains_key(path)
    }

    /// Turns the values into a typed configuration, or returns every problem found so far and now.
    pub fn finish<C: DeserializeOwned>(mut self, check: impl FnOnce(&C, &mut Vec<Problem>)) -> Result<C, Vec<Problem>> {
        self.undo_unreadable::<C>();
        match Value::Table(std::mem::take(&mut self.values)).try_into::<C>() {
            Ok(config) => {
                check(&config, &mut self.problems);
                if self.problems.is_empty() { Ok(config) } else { Err(self.problems) }
            }
            Err(error) => {
                self.problem("configuration", error.message().to_owned());
                Err(self.problems)
            }
        }
    }
}

impl Layers {
    /// Notes every value that its type does not take, and puts the default back, so that the rest can be checked too.
    /// The type's own error names no key; so each value is tried alone among the defaults.
    fn undo_unreadable<C: DeserializeOwned>(&mut self) {
        let changed: Vec<(String, String)> =
            self.origins.iter().map(|(path, source)| (path.clone(), source.clone())).collect();
        for (path, source) in changed {
            let Some(value) = self.get(&path).cloned() else { continue };
            let Some(default) = find(&mut self.defaults, &path).map(|slot| std::mem::replace(slot, value)) else {
                continue;
            };
            let read = Value::Table(self.defaults.clone()).try_into::<C>();
            if let Some(slot) = find(&mut self.defaults, &path) {
                *slot = default.clone();
            }
            if let Err(error) = read {
                self.problem(source, format!("`{path}`: {}", error.message()));
                if let Some(slot) = self.slot(&path) {
                    *slot = default;
                }
            }
        }
    }
}

fn find<'t>(table: &'t mut Table, path: &str) -> Option<&'t mut Value> {
    let mut parts = path.split('.');
    let mut value = table.get_mut(parts.next()?)?;
    for part in parts {
        value = value.as_table_mut()?.get_mut(part)?;
    }
    Some(value)
}

/// The number of single-character edits between two names.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &str = "name = \"x\"\n[limits]\nper_second = 10\nstrict = true\nlist = []\n";

    #[derive(Debug, serde::Deserialize)]
    struct Config {
        name: String,
        limits: Limits,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Limits {
        per_second: u32,
        strict: bool,
        list: Vec<String>,
    }

    fn finish(layers: Layers) -> Result<Config, Vec<Problem>> {
        layers.finish(|_, _| {})
    }

    #[test]
    fn later_layers_win() {
        let mut layers = Layers::new(DEFAULTS);
        layers.file("a.toml", "name = \"file\"\n[limits]\nper_second = 20\nlist = [\"a\"]");
        let environment =
            [("WHARF__LIMITS__PER_SECOND".to_owned(), "30".to_owned()), ("WHARF__NAME".into(), String::new())];
        layers.environment(&BTreeMap::from(environment));
        layers.text("--strict", "limits.strict", "no");
        assert_eq!(layers.origin("limits.per_second"), "WHARF__LIMITS__PER_SECOND");
        assert_eq!(layers.origin("name"), "a.toml");
        let config = finish(layers).unwrap();
        assert_eq!((config.name.as_str(), config.limits.per_second, config.limits.strict), ("file", 30, false));
        assert_eq!(config.limits.list, ["a"]);
    }

    #[test]
    fn every_problem_is_listed_at_once() {
        let mut layers = Layers::new(DEFAULTS);
        layers.file("a.toml", "nam = \"x\"\n[limits]\nper_second = \"many\"\n[nowhere]\na = 1");
        layers.text("WHARF__LIMITS__STRICT", "limits.strict", "perhaps");
        let problems = finish(layers).unwrap_err();
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 4, "{text:?}");
        assert!(
            text[0].contains("unknown key `nam`; did you mean `name`?")
                || text[1].contains("did you mean `name`?")
                || text[2].contains("did you mean `name`?"),
            "{text:?}"
        );
    }

    #[test]
    fn a_skipped_section_is_neither_read_nor_wrong() {
        let mut layers = Layers::new(DEFAULTS);
        layers.skip(&["limits"]);
        layers.default("name", "another default");
        layers.file("a.toml", "[limits]\nper_secnd = 20\nstrict = \"perhaps\"");
        layers.text("WHARF__LIMITS__PER_SECOND", "limits.per_second", "many");
        let config = finish(layers).unwrap();
        assert_eq!((config.name.as_str(), config.limits.per_second), ("another default", 10));
    }

    #[test]
    fn a_file_that_is_not_toml_is_a_problem_with_its_line() {
        let mut layers = Layers::new(DEFAULTS);
        layers.file("a.toml", "name = \"x\"\nlimits = [");
        assert!(finish(layers).unwrap_err()[0].source.starts_with("a.toml, line "));
    }
}
