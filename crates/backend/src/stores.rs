//! The stores of an app: its own, and one for each data source whose documents are elsewhere.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use serde::Deserialize;
use store::{Durability, MongoStore, ReadPreference, Retention, Settings, SqliteStore, Store};

use crate::{Environment, Secret, data::OWN_DATABASES, definition::Definition};

/// The prefix of the environment variables that name the store of a data source.
const VARIABLE: &str = "USERKEEP_DATA_SOURCE_";

/// The address of a store.
///
/// It is read from a text: a MongoDB connection string, a path, or an empty text for a store in
/// memory.
///
/// ```
/// use backend::StoreAddress;
///
/// assert_eq!(StoreAddress::from(String::new()), StoreAddress::Memory);
/// assert_eq!(StoreAddress::from("app.sqlite".to_owned()), StoreAddress::File("app.sqlite".into()));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
pub enum StoreAddress {
    /// In memory: the documents are lost when the store closes.
    #[default]
    Memory,
    /// A SQLite file.
    File(PathBuf),
    /// A MongoDB connection string, which may contain a password.
    MongoDb(Secret),
}

impl From<String> for StoreAddress {
    fn from(address: String) -> Self {
        if address.is_empty() {
            Self::Memory
        } else if address.starts_with("mongodb://") || address.starts_with("mongodb+srv://") {
            Self::MongoDb(address.into())
        } else {
            Self::File(address.into())
        }
    }
}

/// The addresses of the data sources that have a store of their own. All other data sources use
/// the app's store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DataSources {
    /// Addresses by the name of the data source.
    pub named: BTreeMap<String, StoreAddress>,
    /// Addresses by the name of the environment variable: `USERKEEP_DATA_SOURCE_` and the name of
    /// the data source in upper case, with an underscore for each character that is not a letter
    /// or a digit.
    pub variables: BTreeMap<String, StoreAddress>,
}

impl DataSources {
    /// Returns the address of each data source of the definition that has one of its own.
    fn resolve<'a>(&'a self, definition: &'a Definition) -> Result<HashMap<&'a str, &'a StoreAddress>, String> {
        let services = || definition.services.keys().map(String::as_str);
        if let Some(unknown) = self.named.keys().find(|name| !definition.services.contains_key(*name)) {
            let known = services().collect::<Vec<_>>().join("', '");
            return Err(format!("the definition has no data source '{unknown}': it has '{known}'"));
        }
        let mut addresses: HashMap<&str, &StoreAddress> = HashMap::new();
        let mut used = BTreeMap::new();
        for service in services() {
            let variable = variable(service);
            if let Some(address) = self.variables.get(&variable) {
                if let Some(other) = used.insert(variable.clone(), service) {
                    return Err(format!(
                        "{variable} stands for two data sources, '{other}' and '{service}': set their stores with the option 'dataSources'"
                    ));
                }
                addresses.insert(service, address);
            }
        }
        if let Some(unknown) = self.variables.keys().find(|name| !used.contains_key(*name)) {
            return Err(format!("{unknown} stands for none of the definition's data sources"));
        }
        addresses.extend(self.named.iter().map(|(name, address)| (name.as_str(), address)));
        Ok(addresses)
    }
}

fn variable(service: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    format!("{VARIABLE}{}", service.chars().map(letter).collect::<String>())
}

/// Settings of embedded stores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreSettings {
    pub(crate) durability: Durability,
    pub(crate) retention: Retention,
}

/// An app's stores.
#[derive(Debug)]
pub(crate) struct Stores {
    /// The store of users, sessions and all data sources without a store of their own.
    main: Arc<dyn Store>,
    services: Services,
    /// Each open store once, for closing.
    all: Vec<Arc<dyn Store>>,
    /// True if one of the stores runs in another process.
    has_remote: bool,
    /// The open stores by their addresses, for a reloaded definition.
    opened: Arc<OpenStores>,
}

/// The data sources of a definition that do not use the app's own store as it is.
#[derive(Debug, Default)]
struct Services {
    stores: HashMap<String, Arc<dyn Store>>,
    /// The names of those whose documents are not in the app's own store.
    elsewhere: HashSet<String>,
}

/// The open stores of an app by their addresses.
#[derive(Debug)]
struct OpenStores {
    main: StoreAddress,
    sources: DataSources,
    stores: HashMap<StoreAddress, Opened>,
}

/// A store that is open.
#[derive(Debug)]
enum Opened {
    Embedded(Arc<dyn Store>),
    MongoDb(MongoStore),
}

impl Opened {
    fn open(address: &StoreAddress, environment: &Environment, settings: StoreSettings) -> store::Result<Self> {
        let environment = Arc::new(environment.clone());
        let location = match address {
            StoreAddress::Memory => store::Location::Memory,
            StoreAddress::File(path) => store::Location::File(path.clone()),
            StoreAddress::MongoDb(address) => {
                return MongoStore::open(address.expose(), environment, Some(OWN_DATABASES)).map(Self::MongoDb);
            }
        };
        let settings = Settings {
            durability: settings.durability,
            retention: settings.retention,
            // Log-ins and log-outs must not appear in change streams.
            unwatched: Some(OWN_DATABASES),
            sync: None,
        };
        Ok(Self::Embedded(Arc::new(SqliteStore::open_with(location, environment, settings)?)))
    }

    /// Returns the store as a data source with this read preference uses it.
    fn view(&self, preference: Option<&ReadPreference>) -> store::Result<Arc<dyn Store>> {
        Ok(match (self, preference) {
            (Self::Embedded(store), _) => Arc::clone(store),
            (Self::MongoDb(store), None) => Arc::new(store.clone()),
            (Self::MongoDb(store), Some(preference)) => Arc::new(store.reading_from(preference)?),
        })
    }
}

/// Opens a store in memory, for backends of one process that share it.
///
/// # Errors
/// If SQLite fails.
pub fn open_memory(options: &crate::Options, environment: &Environment) -> store::Result<Arc<dyn Store>> {
    let settings = StoreSettings { durability: options.durability, retention: options.change_retention };
    Opened::open(&StoreAddress::Memory, environment, settings)?.view(None)
}

/// Opens a store on its own, without an app, with default settings.
///
/// # Errors
/// If the store cannot be opened.
pub fn open_store(address: &StoreAddress) -> store::Result<Arc<dyn Store>> {
    let settings = StoreSettings { durability: Durability::default(), retention: Retention::default() };
    Opened::open(address, &Environment::system(), settings)?.view(None)
}

impl OpenStores {
    /// Returns the stores of the data sources that do not use the app's own store as it is.
    fn services(&self, definition: &Definition) -> store::Result<Services> {
        let addresses = self.sources.resolve(definition).map_err(|reason| store::Error::DataSource { reason })?;
        let mut services = Services::default();
        for (name, service) in &definition.services {
            let address = addresses.get(name.as_str()).copied().unwrap_or(&self.main);
            let opened = self.stores.get(address).ok_or_else(|| store::Error::DataSource {
                reason: format!("the store of the data source '{name}' is not open: restart to open it"),
            })?;
            if *address != self.main {
                services.elsewhere.insert(name.clone());
            }
            // A data source without an address uses the app's store.
            if *address != self.main || service.read_preference.is_some() {
                services.stores.insert(name.clone(), opened.view(service.read_preference.as_ref())?);
            }
        }
        Ok(services)
    }
}

impl Stores {
    /// Uses one store for everything.
    pub(crate) fn of_one(store: Arc<dyn Store>) -> Self {
        let has_remote = store.is_remote();
        let main = StoreAddress::default();
        let stores = HashMap::from([(main.clone(), Opened::Embedded(Arc::clone(&store)))]);
        let opened = OpenStores { main, sources: DataSources::default(), stores };
        Self {
            main: Arc::clone(&store),
            services: Services::default(),
            all: vec![store],
            has_remote,
            opened: Arc::new(opened),
        }
    }

    /// Opens the stores of an app, each address once. The app's own store may be open already as
    /// `open_main`.
    pub(crate) fn open(
        main: &StoreAddress,
        open_main: Option<Arc<dyn Store>>,
        sources: &DataSources,
        definition: &Definition,
        environment: &Environment,
        settings: StoreSettings,
    ) -> store::Result<Self> {
        let addresses = sources.resolve(definition).map_err(|reason| store::Error::DataSource { reason })?;
        let open_main = match open_main {
            Some(store) => Opened::Embedded(store),
            None => Opened::open(main, environment, settings)?,
        };
        let mut stores = HashMap::from([(main.clone(), open_main)]);
        for address in addresses.values() {
            if !stores.contains_key(*address) {
                stores.insert((*address).clone(), Opened::open(address, environment, settings)?);
            }
        }
        let all = stores.values().map(|opened| opened.view(None)).collect::<store::Result<Vec<_>>>()?;
        let has_remote = all.iter().any(|store| store.is_remote());
        let own = stores[main].view(None)?;
        let opened = Arc::new(OpenStores { main: main.clone(), sources: sources.clone(), stores });
        let services = opened.services(definition)?;
        Ok(Self { main: own, services, all, has_remote, opened })
    }

    /// Returns the same open stores with the data sources of another definition.
    ///
    /// # Errors
    /// If a data source has a store that is not open.
    pub(crate) fn for_definition(&self, definition: &Definition) -> store::Result<Self> {
        Ok(Self {
            main: Arc::clone(&self.main),
            services: self.opened.services(definition)?,
            all: self.all.clone(),
            has_remote: self.has_remote,
            opened: Arc::clone(&self.opened),
        })
    }

    /// Returns the store of users, sessions and all data sources without a store of their own.
    pub(crate) fn main(&self) -> &Arc<dyn Store> {
        &self.main
    }

    /// True if one of the stores runs in another process, so that a request may have to wait for
    /// it.
    pub(crate) fn has_remote(&self) -> bool {
        self.has_remote
    }

    /// True if a data source is in the main store, so that one transaction can contain both.
    pub(crate) fn is_in_main(&self, service: &str) -> bool {
        !self.services.elsewhere.contains(service)
    }

    /// Returns the store of a data source.
    pub(crate) fn of(&self, service: &str) -> &Arc<dyn Store> {
        self.services.stores.get(service).unwrap_or(&self.main)
    }

    /// Checks that the files of embedded stores were neither removed nor replaced.
    pub(crate) fn check_files(&self) -> store::Result<()> {
        self.all.iter().try_for_each(|store| store.check_file())
    }

    pub(crate) async fn close(&self) {
        for store in &self.all {
            store.close().await;
        }
    }
}
