//! What a client did wrong below the level of commands.

use thiserror::Error;

/// Input that is not RESP. Display is the text Redis 7.2 sends after `-ERR ` before it closes the connection;
/// attributes, which Redis does not read, have texts of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    #[error("Protocol error: too big mbulk count string")]
    TooBigMultibulkCount,
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    #[error("Protocol error: too big bulk count string")]
    TooBigBulkCount,
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    #[error("Protocol error: too big inline request")]
    TooBigInline,
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    #[error("Protocol error: too big attribute count string")]
    TooBigAttributeCount,
    #[error("Protocol error: invalid attribute count, at most 64 pairs may precede a command")]
    InvalidAttributeCount,
    #[error("Protocol error: expected '$' in an attribute, got '{}'", char::from(*.0))]
    ExpectedAttributeBulk(u8),
    #[error("Protocol error: invalid attribute string length")]
    InvalidAttributeLength,
    #[error("Protocol error: expected '*' after an attribute, got '{}'", char::from(*.0))]
    ExpectedCommand(u8),
}

impl ProtocolError {
    /// The text without what the client sent: for logs and traces.
    pub fn recorded(&self) -> String {
        let text = self.to_string();
        match self {
            Self::ExpectedBulk(_) | Self::ExpectedAttributeBulk(_) | Self::ExpectedCommand(_) => {
                text.split(", got").next().unwrap_or_default().to_owned()
            }
            _ => text,
        }
    }

    /// The text as bytes for the reply: unlike Display, the offending byte is sent as it came, whatever it is.
    pub fn text(&self) -> Vec<u8> {
        let mut text = self.to_string();
        match *self {
            Self::ExpectedBulk(byte) | Self::ExpectedAttributeBulk(byte) | Self::ExpectedCommand(byte) => {
                let end = text.len() - char::from(byte).len_utf8() - 1;
                text.truncate(end);
                let mut bytes = text.into_bytes();
                bytes.extend_from_slice(&[byte, b'\'']);
                bytes
            }
            _ => text.into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_holds_nothing_of_the_client_s() {
        assert_eq!(ProtocolError::ExpectedBulk(b's').recorded(), "Protocol error: expected '$'");
        assert_eq!(ProtocolError::ExpectedCommand(b's').recorded(), "Protocol error: expected '*' after an attribute");
        assert_eq!(ProtocolError::TooBigInline.recorded(), "Protocol error: too big inline request");
    }
}
