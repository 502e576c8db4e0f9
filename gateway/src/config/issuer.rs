//! The sections `jwt`, the OpenID Connect provider whose tokens are accepted in the place of API keys, and `oidc`, the
//! one at which people log in to the console.

use super::read::{At, choice, section};

section! {
    /// Tokens (JWT) of an OpenID Connect provider.
    struct JwtSettings {
        /// The provider's URL, exactly as its tokens have it in `iss`. `https://`, or `http://` on loopback.
        issuer: At<String>,
        /// Audiences of which a token must have one in `aud`.
        audience: Vec<At<String>>,
        /// URL of the provider's signing keys. Default: `jwks_uri` of `ISSUER/.well-known/openid-configuration`.
        jwks_url: Option<At<String>>,
        /// CA certificates (PEM) for the provider's server, beside those of the machine.
        ca_file: Option<At<String>>,
        /// The claim that names a user of `users.yaml`.
        user_claim: String = "sub".to_owned(),
        /// The claim that lists the token's groups.
        groups_claim: String = "groups".to_owned(),
        /// Users that stand for groups, for tokens whose user is not in `users.yaml`. The first that a token has counts.
        groups: Vec<JwtGroup>,
    }

    /// A group of the provider.
    struct JwtGroup {
        /// The group's name in the token.
        group: String,
        /// The user of `users.yaml` whose project, limits and priority its members share.
        user: At<String>,
    }
    /// Login to the console at an OpenID Connect provider.
    struct OidcSettings {
        /// The provider's URL, exactly as its tokens have it in `iss`. `https://`, or `http://` on loopback.
        issuer: At<String>,
        /// The console's id at the provider.
        client_id: At<String>,
        /// Environment variable with the client's secret. Default: none (a public client; PKCE is always used).
        client_secret_env: Option<String>,
        /// The address that the provider sends a browser back to, as it is registered there; it ends in
        /// `/login/callback`. Default: that of the admin listener, by the name that the browser uses.
        redirect_url: Option<At<String>>,
        /// What is asked of the provider, beside `openid`.
        scopes: Vec<String>,
        /// CA certificates (PEM) for the provider's server, beside those of the machine.
        ca_file: Option<At<String>>,
        /// The claim of the ID token that is shown as a person's name.
        name_claim: String = "sub".to_owned(),
        /// The claim of the ID token that lists a person's groups.
        groups_claim: String = "groups".to_owned(),
        /// The roles of groups. The first whose group a person has counts; without one, nobody is let in.
        roles: Vec<OidcRole>,
    }

    /// The role of a group.
    struct OidcRole {
        /// The group's name in the token.
        group: At<String>,
        /// What its members may see and do.
        role: ConsoleRole,
        /// The project of a `project_owner`.
        project: Option<At<String>>,
    }
}

choice! {
    /// What a person may see and do in the console.
    enum ConsoleRole {
        /// Sees every page, changes nothing.
        Viewer = "viewer",
        /// Sees and does everything.
        Operator = "operator",
        /// Sees one project, its requests and its keys; makes, rotates and revokes its keys, and cancels its requests.
        ProjectOwner = "project_owner",
    }

    /// Identification of clients.
    enum IdentityMode {
        /// By the names that they send, without proof; on loopback only.
        Open = "open",
        /// By API key.
        Keys = "keys",
    }
}
