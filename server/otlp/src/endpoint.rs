//! How an endpoint is told: where it leads, and none of the secrets that it may hold.

/// The endpoint without a user, a password and a query, in which some backends want their token. What is no URL is told as far as
/// that goes.
pub fn without_secrets(endpoint: &str) -> String {
    let told = endpoint.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = told.split_at(told.find("://").map_or(0, |at| at + 3));
    // The last one: a password may hold what ends an authority.
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_told_without_its_secrets() {
        for (endpoint, told) in [
            ("https://me:pw@host:4317/v1?key=x", "https://host:4317/v1"),
            ("http://127.0.0.1:4317", "http://127.0.0.1:4317"),
            ("https://host/v1/traces?token=x#pw", "https://host/v1/traces"),
            ("me:pw@host:4317", "host:4317"),
            ("http://me:p/w@host:4317/v1", "http://host:4317/v1"),
            ("http://me:p@w@host:4317", "http://host:4317"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(endpoint), told, "{endpoint}");
        }
    }
}
