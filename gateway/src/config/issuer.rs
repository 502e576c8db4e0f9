//! The section `jwt`: the OpenID Connect provider whose tokens are accepted in the place of API keys.

use super::read::{At, section};

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
}
