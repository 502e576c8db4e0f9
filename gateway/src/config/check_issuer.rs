//! The check of the sections `jwt` and `oidc`.

use super::checked::{Jwt, JwtGroup, Oidc, Role};
use super::checks::Check;
use super::issuer::{ConsoleRole, JwtSettings, OidcRole, OidcSettings};
use super::read::At;
use http::Uri;
use policy::UserId;
use std::net::IpAddr;

const FILE: &str = "gateway.yaml";

impl Check<'_> {
    /// The provider as it is meant; `None` where none is configured or its URL is wrong.
    pub(super) fn jwt(&mut self, raw: Option<&JwtSettings>, users: Option<&[String]>) -> Option<Jwt> {
        let raw = raw?;
        self.provider_url("jwt.issuer", &raw.issuer);
        if let Some(url) = &raw.jwks_url {
            self.provider_url("jwt.jwks_url", url);
        }
        if let Some(file) = &raw.ca_file {
            self.file_is_there(FILE, "jwt.ca_file", file);
        }
        if raw.audience.is_empty() && raw.issuer.line > 0 {
            let message = "needs an audience, or tokens made for other programs would be accepted";
            self.problem(FILE, raw.issuer.line, "jwt.audience".to_owned(), message);
        }
        let groups = raw.groups.iter().map(|group| {
            let key = "jwt.groups.user".to_owned();
            JwtGroup {
                group: group.group.clone(),
                user: UserId(self.reference((FILE, key), &group.user, users, "user")),
            }
        });
        Some(Jwt {
            groups: groups.collect(),
            issuer: raw.issuer.value.clone(),
            audience: raw.audience.iter().map(|at| at.value.clone()).collect(),
            jwks_url: raw.jwks_url.as_ref().map(|at| at.value.clone()),
            ca_file: raw.ca_file.as_ref().map(|at| at.value.clone().into()),
            user_claim: raw.user_claim.clone(),
            groups_claim: raw.groups_claim.clone(),
        })
    }

    /// The provider of the console's logins as it is meant.
    pub(super) fn oidc(&mut self, raw: Option<&OidcSettings>, projects: Option<&[String]>) -> Option<Oidc> {
        let raw = raw?;
        self.provider_url("oidc.issuer", &raw.issuer);
        if let Some(url) = &raw.redirect_url {
            self.provider_url("oidc.redirect_url", url);
            if !url.value.ends_with("/login/callback") {
                let message = "must end in /login/callback, where the console expects browsers back";
                self.problem(FILE, url.line, "oidc.redirect_url".to_owned(), message);
            }
        }
        if let Some(file) = &raw.ca_file {
            self.file_is_there(FILE, "oidc.ca_file", file);
        }
        if raw.roles.is_empty() && raw.issuer.line > 0 {
            let message = "needs a role for a group, or nobody can log in; such as {group: admins, role: operator}";
            self.problem(FILE, raw.issuer.line, "oidc.roles".to_owned(), message);
        }
        let roles = raw.roles.iter().map(|role| self.role(role, projects)).collect();
        Some(Oidc {
            tokens: Jwt {
                issuer: raw.issuer.value.clone(),
                audience: vec![raw.client_id.value.clone()],
                jwks_url: None,
                ca_file: raw.ca_file.as_ref().map(|at| at.value.clone().into()),
                user_claim: raw.name_claim.clone(),
                groups_claim: raw.groups_claim.clone(),
                groups: Vec::new(),
            },
            client_id: raw.client_id.value.clone(),
            client_secret_env: raw.client_secret_env.clone(),
            redirect_url: raw.redirect_url.as_ref().map(|at| at.value.clone()),
            scopes: raw.scopes.clone(),
            roles,
        })
    }

    fn role(&mut self, raw: &OidcRole, projects: Option<&[String]>) -> (String, Role) {
        let key = || "oidc.roles.project".to_owned();
        let role = match (raw.role, &raw.project) {
            (ConsoleRole::ProjectOwner, Some(project)) => {
                self.reference((FILE, key()), project, projects, "project");
                Role::ProjectOwner(project.value.clone())
            }
            (ConsoleRole::ProjectOwner, None) => {
                let message = "a project_owner needs a project";
                self.problem(FILE, raw.group.line, key(), message);
                Role::ProjectOwner(String::new())
            }
            (ConsoleRole::Viewer | ConsoleRole::Operator, Some(project)) => {
                let message = "is of a project_owner alone; viewers and operators see every project";
                self.problem(FILE, project.line, key(), message);
                Role::Viewer
            }
            (ConsoleRole::Viewer, None) => Role::Viewer,
            (ConsoleRole::Operator, None) => Role::Operator,
        };
        (raw.group.value.clone(), role)
    }

    fn provider_url(&mut self, key: &str, url: &At<String>) {
        if url.line > 0 && !is_trustworthy(&url.value) {
            let message = format!(
                "`{}` is not a URL such as https://login.example.org; http:// is accepted for 127.0.0.1 and localhost alone",
                url.value
            );
            self.problem(FILE, url.line, key.to_owned(), message);
        }
    }
}

/// True for a URL whose answers nobody on the network can change: `https://`, or `http://` on loopback.
pub(crate) fn is_trustworthy(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match url.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => is_loopback,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_trustworthy;

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for url in [
            "https://login.example.org",
            "https://login.example.org/realms/a",
            "http://127.0.0.1:4000",
            "http://[::1]:4000/x",
            "http://localhost:9",
        ] {
            assert!(is_trustworthy(url), "{url}");
        }
        for url in [
            "http://login.example.org",
            "http://10.0.0.1",
            "http://127.0.0.1.example.org",
            "login.example.org",
            "file:///etc/passwd",
            "https://",
            "",
        ] {
            assert!(!is_trustworthy(url), "{url}");
        }
    }
}
