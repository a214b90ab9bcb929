//! The session file keeps an app's users between runs. It is readable by its owner only, and
//! encrypted if the application provides a key.
//!
//! Writes replace the file atomically. Processes that share the file take turns, and each changes
//! its own part only.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf::{HKDF_SHA256, Salt},
};
use backend::{Secret, response::Identity};
use bson::{
    raw::{RawArrayBuf, RawDocument, RawDocumentBuf},
    rawdoc,
};

use crate::{
    Error, Result,
    state::{User, UserState},
};

const PLAIN: &[u8; 4] = b"UKS0";
const ENCRYPTED: &[u8; 4] = b"UKS1";

/// Time to wait for another process that changes the file, after which a change fails.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The length of an encryption key in bytes, as in the SDK.
pub(crate) const KEY_LENGTH: usize = 64;

/// The mode of keeping users between runs, as in the SDK's `metadata` option.
pub enum Metadata {
    /// In a file, in plain text.
    NoEncryption,
    /// In a file, encrypted with a key of 64 bytes.
    Encryption(Vec<u8>),
    /// In memory only.
    InMemory,
}

/// The file with an app's users.
pub struct SessionFile {
    path: PathBuf,
    key: Option<RandomizedNonceKey>,
    #[cfg(test)]
    pub(crate) writes: std::sync::atomic::AtomicUsize,
}

impl std::fmt::Debug for SessionFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SessionFile").field("path", &self.path).field("encrypted", &self.key.is_some()).finish()
    }
}

/// The contents of the file: the users, and the id of the current one.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) users: Vec<User>,
    pub(crate) current: Option<String>,
}

impl SessionFile {
    /// Returns the session file at `path`, encrypted if there is a key.
    ///
    /// # Errors
    /// If the key does not have 64 bytes.
    pub fn new(path: PathBuf, key: Option<&[u8]>) -> Result<Self> {
        let key = key.map(derive).transpose()?;
        Ok(Self {
            path,
            key,
            #[cfg(test)]
            writes: Default::default(),
        })
    }

    pub(crate) fn load(&self) -> Result<Kept> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::default()),
            Err(error) => return Err(self.error(format_args!("cannot be read: {error}"))),
        };
        let plain = self.decrypt(bytes)?;
        let damaged = |error: bson::error::Error| self.error(format_args!("is damaged: {error}"));
        let document = RawDocumentBuf::from_bytes(plain).map_err(damaged)?;
        read(&document).map_err(damaged)
    }

    /// Changes the contents of the file, as other processes left them. Durable changes survive a
    /// power failure.
    pub(crate) fn update(&self, durable: bool, change: impl FnOnce(&mut Kept)) -> Result<()> {
        files::create_directory(self.path.parent().unwrap_or(Path::new(""))).map_err(|error| self.unwritten(&error))?;
        self.replace(durable, LOCK_PATIENCE, |kept| {
            change(kept);
            true
        })
    }

    /// Changes the contents of an existing file, not durably. Waits for other processes up to
    /// `patience`. Writes only if `change` returns true.
    pub(crate) fn update_existing(&self, patience: Duration, change: impl FnOnce(&mut Kept) -> bool) -> Result<()> {
        // A directory that the application has removed is not created again.
        if self.path.exists() { self.replace(false, patience, change) } else { Ok(()) }
    }

    fn replace(&self, durable: bool, patience: Duration, change: impl FnOnce(&mut Kept) -> bool) -> Result<()> {
        let _lock = files::Lock::acquire(&self.path, patience).map_err(|error| self.unwritten(&error))?;
        let mut kept = self.load()?;
        if !change(&mut kept) {
            return Ok(());
        }
        #[cfg(test)]
        self.writes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let bytes = self.encrypt(write(&kept).into_bytes())?;
        files::replace(&self.path, &bytes, durable).map_err(|error| self.unwritten(&error))
    }

    fn unwritten(&self, error: &std::io::Error) -> Error {
        self.error(format_args!("cannot be written: {error}"))
    }

    fn encrypt(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        let Some(key) = &self.key else { return Ok([PLAIN.as_slice(), &bytes].concat()) };
        let nonce = key
            .seal_in_place_append_tag(Aad::from(ENCRYPTED), &mut bytes)
            .map_err(|_| self.error(format_args!("cannot be encrypted")))?;
        Ok([ENCRYPTED.as_slice(), nonce.as_ref(), &bytes].concat())
    }

    fn decrypt(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        match (bytes.split_first_chunk::<4>(), &self.key) {
            (Some((PLAIN, plain)), None) => Ok(plain.to_vec()),
            (Some((PLAIN, _)), Some(_)) => {
                Err(self.error(format_args!("is not encrypted, but an encryption key was given")))
            }
            (Some((ENCRYPTED, _)), None) => {
                Err(self.error(format_args!("is encrypted, and no encryption key was given")))
            }
            (Some((ENCRYPTED, sealed)), Some(key)) => {
                let wrong = || {
                    self.error(format_args!(
                        "cannot be decrypted: the encryption key is not the one it was written with"
                    ))
                };
                let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
                let mut sealed = sealed.to_vec();
                let length = key
                    .open_in_place(Nonce::from(nonce), Aad::from(ENCRYPTED), &mut sealed)
                    .map_err(|_| wrong())?
                    .len();
                sealed.truncate(length);
                Ok(sealed)
            }
            _ => Err(self.error(format_args!("is not a session file of Userkeep"))),
        }
    }

    fn error(&self, what: std::fmt::Arguments<'_>) -> Error {
        Error::custom(format!("the session file {} {what}. The file was not changed", self.path.display()))
    }
}

fn derive(secret: &[u8]) -> Result<RandomizedNonceKey> {
    if secret.len() != KEY_LENGTH {
        return Err(Error::custom(format!("the encryption key must have {KEY_LENGTH} bytes, got {}", secret.len())));
    }
    let failed = |_| Error::custom("the encryption key cannot be used");
    let mut key = [0; 32];
    let extracted = Salt::new(HKDF_SHA256, b"userkeep").extract(secret);
    extracted.expand(&[b"session file"], HKDF_SHA256).and_then(|expanded| expanded.fill(&mut key)).map_err(failed)?;
    RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(failed)
}

fn write(kept: &Kept) -> RawDocumentBuf {
    let mut users = RawArrayBuf::new();
    for user in &kept.users {
        let mut identities = RawArrayBuf::new();
        for identity in &user.identities {
            identities.push(rawdoc! { "id": identity.id.as_str(), "provider_type": identity.provider_type.as_str() });
        }
        let mut document = rawdoc! {
            "id": user.id.as_str(),
            "logged_in": user.state == UserState::LoggedIn,
            "access_token": user.access_token.expose(),
            "refresh_token": user.refresh_token.expose(),
            "device_id": user.device_id.as_str(),
            "identities": identities,
            "profile": user.profile.clone(),
        };
        if let Some(custom_data) = &user.custom_data {
            document.append(bson::raw::cstr!("custom_data"), custom_data);
        }
        users.push(document);
    }
    let mut document = rawdoc! { "version": 1, "users": users };
    if let Some(current) = &kept.current {
        document.append(bson::raw::cstr!("current"), current.as_str());
    }
    document
}

fn read(document: &RawDocument) -> Result<Kept, bson::error::Error> {
    let mut users = Vec::new();
    for item in document.get_array("users")? {
        let Some(kept) = item?.as_document() else { continue };
        let mut user = User::new(kept.get_str("id")?.to_owned());
        user.state = if kept.get_bool("logged_in")? { UserState::LoggedIn } else { UserState::LoggedOut };
        user.access_token = Secret::from(kept.get_str("access_token")?.to_owned());
        user.refresh_token = Secret::from(kept.get_str("refresh_token")?.to_owned());
        kept.get_str("device_id")?.clone_into(&mut user.device_id);
        user.profile = kept.get_document("profile")?.to_owned();
        user.custom_data = kept.get_document("custom_data").ok().map(RawDocument::to_owned);
        for identity in kept.get_array("identities")? {
            if let Some(identity) = identity?.as_document() {
                user.identities.push(Identity {
                    id: identity.get_str("id")?.to_owned(),
                    provider_type: identity.get_str("provider_type")?.to_owned(),
                });
            }
        }
        users.push(user);
    }
    Ok(Kept { users, current: document.get_str("current").ok().map(str::to_owned) })
}
