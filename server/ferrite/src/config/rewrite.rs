//! CONFIG REWRITE: brings a configuration file up to date and leaves the rest of it as it is.

use ferrite_node::config::Config;
use toml_edit::{DocumentMut, Item, Table, TableLike};

use super::{KEYS, Problem, Problems, Sources};

impl Sources {
    /// The file's `text` with every key set so that a start with it gives `config`. Keys that do so already
    /// keep their comments, their layout and their `${VAR}`; what only the environment or the command line
    /// says does not enter the file.
    pub fn rewritten(&self, text: &str, config: &Config) -> Result<String, Problems> {
        let (stated, _) = self.layered(Some(text))?;
        let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            Problems(vec![Problem::new("the configuration file", error.message())])
        })?;
        for key in KEYS {
            let mut value = key.show(config);
            if value.to_string() == key.show(&stated).to_string() {
                continue;
            }
            let mut section: &mut dyn TableLike = document.as_table_mut();
            for part in key.section.split('.') {
                let item = section.entry(part).or_insert_with(|| Item::Table(Table::new()));
                section = item.as_table_like_mut().expect("the text was just read without a problem");
            }
            match section.get_mut(key.name).and_then(Item::as_value_mut) {
                Some(old) => {
                    *value.decor_mut() = old.decor().clone();
                    *old = value;
                }
                None => {
                    section.insert(key.name, Item::Value(value));
                }
            }
        }
        Ok(document.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use ferrite_node::config::AppendFsync;

    const TEXT: &str =
        "# ours\n[server]\nport = 7000 # fixed\nmaxclients = 10 # small\n\n[telemetry.headers]\nkey = \"${TOKEN}\"\n";

    #[test]
    fn only_what_changed_is_written() {
        let loaded =
            load(TEXT, &[("TOKEN", "s3cret"), ("FERRITE_STORAGE__DIR", "/data")], &["server.databases=4"]).unwrap();
        assert_eq!(loaded.sources.rewritten(TEXT, &loaded.config).unwrap(), TEXT);
        let mut config = loaded.config.clone();
        config.server.maxclients = 20;
        config.server.slowlog_max_len = 7;
        config.aof.appendfsync = AppendFsync::No;
        let rewritten = loaded.sources.rewritten(TEXT, &config).unwrap();
        assert!(rewritten.contains("# ours\n[server]\nport = 7000 # fixed\nmaxclients = 20 # small\n"), "{rewritten}");
        assert!(rewritten.contains("slowlog_max_len = 7\n") && rewritten.contains("key = \"${TOKEN}\""));
        assert!(rewritten.contains("[aof]\nappendfsync = \"no\"\n") && !rewritten.contains("/data"), "{rewritten}");
        assert_eq!(load(&rewritten, &[("TOKEN", "s3cret")], &[]).unwrap().config.server.maxclients, 20);
    }

    #[test]
    fn a_part_of_a_section_is_written_as_one() {
        let loaded = load(TEXT, &[("TOKEN", "s3cret")], &[]).unwrap();
        let mut config = loaded.config.clone();
        config.telemetry.tail.errors = true;
        config.telemetry.sampling.commands.insert("PING".to_owned(), 0.0);
        let rewritten = loaded.sources.rewritten(TEXT, &config).unwrap();
        assert!(rewritten.contains("[telemetry.tail]\nerrors = true\n"), "{rewritten}");
        assert_eq!(load(&rewritten, &[("TOKEN", "s3cret")], &[]).unwrap().config, config);
    }

    #[test]
    fn a_value_set_back_is_written_back() {
        let loaded = load(TEXT, &[("TOKEN", "s3cret")], &[]).unwrap();
        let mut changed = loaded.config.clone();
        changed.server.maxclients = 20;
        let rewritten = loaded.sources.rewritten(TEXT, &changed).unwrap();
        assert_eq!(loaded.sources.rewritten(&rewritten, &loaded.config).unwrap(), TEXT);
    }
}
