use std::{collections::HashMap, time::Duration};

use mongodb::options::{ReadPreference as DriverPreference, ReadPreferenceOptions, SelectionCriteria};

/// The members of a replica set that answer queries
/// (<https://www.mongodb.com/docs/manual/core/read-preference/>).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadPreference {
    /// `primary`, `primaryPreferred`, `secondary`, `secondaryPreferred` or `nearest`.
    pub mode: String,
    /// The tags that a member must have. The first set that matches any member applies; without
    /// sets, all members qualify.
    pub tag_sets: Vec<HashMap<String, String>>,
}

impl ReadPreference {
    /// Checks that the mode exists and can be combined with the tag sets.
    ///
    /// # Errors
    /// The reason, if the mode is unknown or if `primary` is combined with tags.
    pub fn check(&self) -> Result<(), String> {
        self.criteria().map(|_| ())
    }

    pub(super) fn criteria(&self) -> Result<SelectionCriteria, String> {
        let tag_sets = (!self.tag_sets.is_empty()).then(|| self.tag_sets.clone());
        let options =
            ReadPreferenceOptions::builder().tag_sets(tag_sets.clone()).max_staleness(None::<Duration>).build();
        Ok(SelectionCriteria::ReadPreference(match &*self.mode {
            "primary" if tag_sets.iter().flatten().all(HashMap::is_empty) => DriverPreference::Primary,
            "primary" => return Err("the read preference 'primary' does not go with tag sets".to_owned()),
            "primaryPreferred" => DriverPreference::PrimaryPreferred { options: Some(options) },
            "secondary" => DriverPreference::Secondary { options: Some(options) },
            "secondaryPreferred" => DriverPreference::SecondaryPreferred { options: Some(options) },
            "nearest" => DriverPreference::Nearest { options: Some(options) },
            other => return Err(format!("'{other}' is not a read preference")),
        }))
    }
}
