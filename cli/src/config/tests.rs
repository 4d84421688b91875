use super::*;
use crate::config::{Setting, entries, redacted};
use crate::exit::Exit;
use crate::output::Format;

struct World {
    folder: tempfile::TempDir,
    env: BTreeMap<String, String>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home").display().to_string();
        Self { folder, env: BTreeMap::from([("HOME".to_owned(), home)]) }
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn load(&self, flags: ConfigFile) -> Result<Config, Error> {
        let env = |name: &str| self.env.get(name).cloned();
        load(flags, &Places { folder: self.folder.path().to_path_buf(), env: &env, config: None })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }
}

fn slots(slots: u32) -> ConfigFile {
    ConfigFile { worker: WorkerSection { slots: Some(slots), ..Default::default() }, ..Default::default() }
}

#[test]
fn flags_win_over_env_over_project_over_user_over_defaults() {
    let world = World::new();
    let default = world.load(ConfigFile::default()).unwrap();
    assert_eq!(default.worker_slots, Setting { value: processors(), origin: Origin::Default });

    let world = world.file("home/.config/tidegate/config.yaml", "worker: {slots: 1}\noutput: yaml\n");
    let user = Origin::File(world.path("home/.config/tidegate/config.yaml"));
    let found = world.load(ConfigFile::default()).unwrap();
    assert_eq!(found.worker_slots, Setting { value: 1, origin: user.clone() });

    let world = world.file("tidegate.yaml", "worker: {slots: 2}\n");
    let found = world.load(ConfigFile::default()).unwrap();
    assert_eq!(found.worker_slots, Setting { value: 2, origin: Origin::File(world.path("tidegate.yaml")) });
    assert_eq!(found.output, Setting { value: Format::Yaml, origin: user }, "what only the user's file says stands");

    let world = world.env("TIDEGATE_WORKER_SLOTS", "3");
    let found = world.load(ConfigFile::default()).unwrap();
    assert_eq!(found.worker_slots, Setting { value: 3, origin: Origin::Env("TIDEGATE_WORKER_SLOTS".to_owned()) });

    let found = world.load(slots(4)).unwrap();
    assert_eq!(found.worker_slots, Setting { value: 4, origin: Origin::Flag });
}

#[test]
fn catalogs_are_put_together_by_name_and_their_paths_are_below_their_file() {
    let world = World::new()
        .file("home/.config/tidegate/config.yaml", "catalogs: {lake: {sqlite: {path: a.db, warehouse: /w}}}")
        .file("tidegate.yaml", "catalogs: {lake: {sqlite: {path: b.db, warehouse: w}}}\nstate: here\n");
    let found = world.load(ConfigFile::default()).unwrap();
    assert_eq!(found.catalogs.keys().collect::<Vec<_>>(), ["default", "lake"]);
    let CatalogSpec::Sqlite(lake) = &found.catalogs["lake"].value else { panic!("a file") };
    assert_eq!(
        (lake.path.clone(), lake.warehouse.clone()),
        (world.path("b.db"), world.path("w").display().to_string())
    );
    let CatalogSpec::Sqlite(default) = &found.catalogs["default"].value else { panic!("a file") };
    assert_eq!(default.path, world.path("here/catalog.db"));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let said = |world: &World| {
        let error = world.load(ConfigFile::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        error.to_string().replace(&world.folder.path().display().to_string(), "…")
    };
    let files =
        ["wroker: {slots: 1}", "worker: {slot: 1}", "worker: {memory: lots}", "worker: {slots: 0}", "listen: here"];
    let mut all: Vec<String> = files.iter().map(|text| said(&World::new().file("tidegate.yaml", text))).collect();
    all.push(said(&World::new().env("TIDEGATE_OUTPUT", "xml")));
    all.push(said(&World::new().env("TIDEGATE_WORKER_SLOTS", "many")));
    all.push(said(&World::new().env("TIDEGATE_CONFIG", "nowhere.yaml")));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn secrets_are_redacted_where_the_configuration_is_shown() {
    let world = World::new().env("TIDEGATE_COORDINATOR", "http://me:secret@host:1/");
    let shown = entries(&world.load(ConfigFile::default()).unwrap());
    assert_eq!(shown.iter().find(|entry| entry.key == "coordinator").unwrap().value, "http://***@host:1/");
    assert_eq!(redacted("http://host/a@b"), "http://host/a@b");
}

#[test]
fn every_key_is_shown_with_its_origin() {
    let world = World::new().file("tidegate.yaml", "price: {worker_hour: 0.25}\nallow: {paths: [data]}");
    let shown = entries(&world.load(slots(2)).unwrap());
    let lines: Vec<String> =
        shown.iter().map(|entry| format!("{} {} ({})", entry.key, entry.value, entry.origin)).collect();
    insta::assert_snapshot!(lines.join("\n").replace(&world.folder.path().display().to_string(), "…"));
}

const CATALOGS: &str = "catalogs:
  bucket:
    sqlite:
      path: c.db
      warehouse: s3://lake/tables
      storage:
        endpoint: http://127.0.0.1:9000
        access_key_id: {from_env: KEY_ID}
        secret_access_key: {from_file: key}
  shared:
    rest:
      uri: https://me:in-clear@catalog.example/api
      warehouse: main
      oauth2: {client_id: tidegate, client_secret: {from_file: secret}}
      headers: {X-Project: seven}
";

#[test]
fn catalogs_are_shown_with_the_names_of_their_secrets_and_never_with_a_secret() {
    let world = World::new().file("tidegate.yaml", CATALOGS);
    let shown = entries(&world.load(ConfigFile::default()).unwrap());
    let ours = |key: &str| key.starts_with("catalogs.bucket") || key.starts_with("catalogs.shared");
    let lines: Vec<String> =
        shown.iter().filter(|entry| ours(&entry.key)).map(|entry| format!("{} {}", entry.key, entry.value)).collect();
    insta::assert_snapshot!(lines.join("\n").replace(&world.folder.path().display().to_string(), "…"));
}

#[test]
fn a_catalog_that_makes_no_sense_is_refused_with_its_key() {
    let said = |from: &str, to: &str| {
        assert!(CATALOGS.contains(from), "{from}");
        let world = World::new().file("tidegate.yaml", &CATALOGS.replace(from, to));
        let error = world.load(ConfigFile::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        error.to_string().replace(&world.folder.path().display().to_string(), "…")
    };
    let all = [
        said("        access_key_id: {from_env: KEY_ID}\n", ""),
        said("{from_env: KEY_ID}", "AKIA"),
        said("{from_file: key}", "{}"),
        said("      headers", "      token: {from_env: TOKEN}\n      headers"),
        said("https://me:in-clear@catalog.example/api", "catalog.example"),
        said("warehouse: main", "warehose: main"),
    ];
    insta::assert_snapshot!(all.join("\n"));
}
