//! The endpoints of the client API, as a table with one row each.

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// The method `GET`.
    Get,
    /// The method `POST`.
    Post,
    /// The method `PUT`.
    Put,
    /// The method `DELETE`.
    Delete,
}

impl Method {
    /// Returns the method's name in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// The token that an endpoint expects in the `Authorization` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// No token. The header is ignored.
    None,
    /// An access token if the request links an identity to a user, and none otherwise.
    Linking,
    /// An access token.
    Access,
    /// A refresh token.
    Refresh,
}

/// The body that an endpoint reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// No body.
    None,
    /// A small object, such as an e-mail address and a password.
    Small,
    /// An object with data of the application, such as the payload of a custom function.
    Payload,
    /// The arguments of a function or of a data source.
    Arguments,
}

/// A row of the table below.
struct Row {
    method: Method,
    /// The path below [`API`](crate::API), with parameters in braces.
    path: &'static str,
    token: TokenKind,
    body: BodyKind,
}

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident: $method:ident $path:literal, $token:ident, $body:ident;)*) => {
        /// An endpoint of the client API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Endpoint { $($(#[$doc])* $name,)* }

        impl Endpoint {
            /// Every endpoint.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        method: Method::$method,
                        path: $path,
                        token: TokenKind::$token,
                        body: BodyKind::$body,
                    },)*
                }
            }
        }
    };
}

endpoints! {
    /// Returns the base URL of the app's other endpoints.
    Location: Get "/app/{app}/location", None, None;
    /// Returns the public keys that verify the tokens, as a JSON Web Key Set (RFC 7517).
    PublicKeys: Get "/app/{app}/auth/jwks", None, None;
    /// Logs a user in with any provider. With the query `link=true`, links an identity to a user.
    LogIn: Post "/app/{app}/auth/providers/{provider}/login", Linking, Payload;
    /// Registers an e-mail address.
    Register: Post "/app/{app}/auth/providers/local-userpass/register", None, Small;
    /// Confirms a registration with the token from the mail.
    Confirm: Post "/app/{app}/auth/providers/local-userpass/confirm", None, Small;
    /// Sends the confirmation mail again.
    SendConfirmation: Post "/app/{app}/auth/providers/local-userpass/confirm/send", None, Small;
    /// Runs the confirmation function again.
    CallConfirmation: Post "/app/{app}/auth/providers/local-userpass/confirm/call", None, Small;
    /// Sets a new password with the token from the mail.
    Reset: Post "/app/{app}/auth/providers/local-userpass/reset", None, Small;
    /// Sends the mail that resets a password.
    SendReset: Post "/app/{app}/auth/providers/local-userpass/reset/send", None, Small;
    /// Runs the reset function.
    CallReset: Post "/app/{app}/auth/providers/local-userpass/reset/call", None, Payload;
    /// Returns the profile of a user.
    Profile: Get "/auth/profile", Access, None;
    /// Returns a new access token.
    RefreshSession: Post "/auth/session", Refresh, None;
    /// Ends a session.
    EndSession: Delete "/auth/session", Refresh, None;
    /// Deletes the user who sends the request.
    DeleteUser: Delete "/auth/delete", Access, None;
    /// Creates an API key.
    CreateApiKey: Post "/auth/api_keys", Refresh, Small;
    /// Returns all API keys of a user.
    FetchApiKeys: Get "/auth/api_keys", Refresh, None;
    /// Returns one API key of a user.
    FetchApiKey: Get "/auth/api_keys/{id}", Refresh, None;
    /// Deletes an API key.
    DeleteApiKey: Delete "/auth/api_keys/{id}", Refresh, None;
    /// Enables an API key.
    EnableApiKey: Put "/auth/api_keys/{id}/enable", Refresh, None;
    /// Disables an API key.
    DisableApiKey: Put "/auth/api_keys/{id}/disable", Refresh, None;
    /// Calls a function of the app or of a data source. With `Accept: text/event-stream`, opens a
    /// stream of change events.
    CallFunction: Post "/app/{app}/functions/call", Access, Arguments;
    /// Opens a stream of change events. The query contains the call.
    Watch: Get "/app/{app}/functions/call", Access, None;
    /// Registers a device for push notifications.
    RegisterPush: Put "/app/{app}/push/providers/{service}/registration", Access, Small;
    /// Removes the registration of a device.
    DeregisterPush: Delete "/app/{app}/push/providers/{service}/registration", Access, None;
}

impl Endpoint {
    /// Returns the HTTP method.
    pub fn method(self) -> Method {
        self.row().method
    }

    /// Returns the path below [`API`](crate::API), with parameters in braces:
    /// `/app/{app}/location`.
    pub fn path(self) -> &'static str {
        self.row().path
    }

    /// Returns the kind of token that the endpoint expects.
    pub fn token(self) -> TokenKind {
        self.row().token
    }

    /// Returns the kind of body that the endpoint reads.
    pub fn body(self) -> BodyKind {
        self.row().body
    }

    /// Returns the segments of the path, with the values of the parameters. The segments are not
    /// escaped.
    pub(crate) fn segments<'a>(self, value: impl Fn(&str) -> &'a str) -> Vec<&'a str> {
        let path = crate::API.split('/').chain(self.path().split('/')).filter(|segment| !segment.is_empty());
        path.map(|segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => value(name),
            None => segment,
        })
        .collect()
    }
}
