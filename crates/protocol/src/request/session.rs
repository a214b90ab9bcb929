use super::Form;
use crate::{Endpoint, Secret};

/// Declares requests that contain only a token.
macro_rules! token_alone {
    ($($(#[$doc:meta])* $name:ident { $(#[$token_doc:meta])* $token:ident } at $endpoint:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $(#[$token_doc])*
            pub $token: Secret,
        }

        impl Form for $name {
            fn endpoint(&self) -> Endpoint {
                Endpoint::$endpoint
            }

            fn token(&self) -> Option<&Secret> {
                Some(&self.$token)
            }
        }
    )*};
}

token_alone! {
    /// Returns the profile of a user.
    ReadProfile {
        /// The user's access token.
        access_token
    } at Profile;
    /// Returns a new access token.
    RefreshSession {
        /// The refresh token of the session.
        refresh_token
    } at RefreshSession;
    /// Ends a session.
    EndSession {
        /// The refresh token of the session.
        refresh_token
    } at EndSession;
    /// Deletes a user and ends all of the user's sessions.
    DeleteUser {
        /// The access token of the user to delete.
        access_token
    } at DeleteUser;
}
