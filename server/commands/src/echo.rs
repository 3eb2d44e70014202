//! Errors that repeat what a client sent: sent letter for letter, recorded without the client's words.
//!
//! The text of an error reply becomes the status of a span, and so leaves the server. What a client sent may be a value
//! (a misspelt SET is an unknown command with the value among its arguments), so the rule is one for all: whatever of an
//! error is the client's goes through [`Echo::client`], and what is recorded has [`PLACEHOLDER`] in its place.

use ferrite_resp::Reply;

use crate::session::Session;

/// What stands for a client's word, as in a sanitised query.
const PLACEHOLDER: &[u8] = b"?";

/// An error reply made of the server's own words and of the client's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    reply: Vec<u8>,
    recorded: Vec<u8>,
}

impl Echo {
    /// Begins with the server's own words.
    pub fn new(own: impl AsRef<[u8]>) -> Self {
        Self::default().own(own)
    }

    /// Goes on with the server's own words.
    pub fn own(mut self, text: impl AsRef<[u8]>) -> Self {
        self.reply.extend_from_slice(text.as_ref());
        self.recorded.extend_from_slice(text.as_ref());
        self
    }

    /// Goes on with something that the client sent, as C's `%s` prints it: it ends at a zero byte.
    pub fn client(mut self, bytes: &[u8]) -> Self {
        self.reply.extend_from_slice(&bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]);
        self.recorded.extend_from_slice(PLACEHOLDER);
        self
    }

    /// As [`Echo::client`], at most `bytes_max` of it.
    pub fn client_up_to(self, bytes: &[u8], bytes_max: usize) -> Self {
        self.client(&bytes[..bytes.len().min(bytes_max)])
    }

    /// This error as the reason of another one: `code` instead of its `ERR `.
    pub fn as_reason(&self, code: &str) -> Self {
        let behind = |text: &[u8]| [code.as_bytes(), text.strip_prefix(b"ERR ").unwrap_or(text)].concat();
        Self { reply: behind(&self.reply), recorded: behind(&self.recorded) }
    }

    /// Bytes of the reply so far.
    pub(crate) fn reply_len(&self) -> usize {
        self.reply.len()
    }
}

impl Session {
    /// Answers with the error, and remembers what of it may be recorded.
    #[cold]
    pub fn answer(&mut self, reply: &mut Reply<'_>, error: Echo) {
        let start = reply.out.len();
        reply.error(&error.reply);
        // As it is in the output, where line ends have become spaces.
        let sent = reply.out[start + 1..].strip_suffix(b"\r\n").unwrap_or_default().to_vec();
        self.echo = Some(Echo { reply: sent, ..error });
    }

    /// What may be recorded of an error reply, without its `-`.
    pub fn recorded_error<'e>(&'e self, error: &'e [u8]) -> &'e [u8] {
        // The last one may belong to an earlier command; the same text has the same client's words.
        match &self.echo {
            Some(echo) if echo.reply == error => &echo.recorded,
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Arg, CommandSpec};
    use crate::table;
    use crate::testing::Client;

    #[test]
    fn the_client_s_words_are_in_the_reply_and_not_in_the_record() {
        let mut client = Client::new();
        for (command, reply, recorded) in [
            (
                "FLY s3cret more",
                "ERR unknown command 'FLY', with args beginning with: 's3cret' 'more' ",
                "ERR unknown command '?', with args beginning with: '?' '?' ",
            ),
            (
                "CLIENT s3cret",
                "ERR unknown subcommand 's3cret'. Try CLIENT HELP.",
                "ERR unknown subcommand '?'. Try CLIENT HELP.",
            ),
            (
                "GET",
                "ERR wrong number of arguments for 'get' command",
                "ERR wrong number of arguments for 'get' command",
            ),
            (
                "CONFIG SET s3cret x",
                "ERR Unknown option or number of arguments for CONFIG SET - 's3cret'",
                "ERR Unknown option or number of arguments for CONFIG SET - '?'",
            ),
            ("SET k s3cret NX XX", "ERR syntax error", "ERR syntax error"),
            ("EXPIRE k 1 s3cret", "ERR Unsupported option s3cret", "ERR Unsupported option ?"),
        ] {
            assert_eq!(client.run(command), format!("-{reply}\r\n"));
            assert_eq!(client.error, recorded, "{command}");
        }
    }

    #[test]
    fn line_ends_in_the_client_s_words_change_nothing() {
        let mut client = Client::new();
        client.run_args(&[b"FLY", b"a\r\nb"]);
        assert_eq!(client.error, "ERR unknown command '?', with args beginning with: '?' ");
    }

    #[test]
    fn a_queued_command_s_error_is_recorded_without_them_too() {
        let mut client = Client::new();
        for command in ["MULTI", "EXPIRE k 1 s3cret"] {
            client.run(command);
        }
        assert_eq!(client.run("EXEC"), "*1\r\n-ERR Unsupported option s3cret\r\n");
        let spans: Vec<_> = client.spans.iter().map(|span| format!("{span:?}")).collect();
        assert!(spans.iter().any(|span| span.contains("ERR Unsupported option ?")), "{spans:#?}");
        assert!(spans.iter().all(|span| !span.contains("s3cret")), "{spans:#?}");
    }

    /// Looks like no number, option or name of anything.
    const MARK: &str = "s3cret\u{1}w0rd";

    /// Every word that the command's syntax has.
    fn tokens(args: &'static [Arg], into: &mut Vec<&'static str>) {
        for arg in args {
            into.extend(arg.token);
            tokens(arg.args, into);
        }
    }

    fn check(client: &mut Client, words: &[&str], what: &mut usize) {
        client.session = Session::new(7, "127.0.0.1:5000", "127.0.0.1:6379", true);
        let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let reply = client.run_args(&args);
        if reply.starts_with('-') {
            *what += usize::from(reply.contains(MARK));
            assert!(!client.error.contains(MARK), "{words:?} records {:?}: build it with `Echo`", client.error);
        }
    }

    fn check_command(client: &mut Client, name: &[&'static str], spec: &'static CommandSpec, echoes: &mut usize) {
        let mut words = vec![MARK];
        tokens(spec.arguments, &mut words);
        for count in 0..6 {
            let with = |word| [name, &vec![MARK; count], &[word], &[MARK]].concat();
            check(client, &[name, &vec![MARK; count]].concat(), echoes);
            check(client, &[name, &vec!["1"; count], &[MARK]].concat(), echoes);
            for &word in &words {
                check(client, &with(word), echoes);
                check(client, &with(word)[..name.len() + count + 1], echoes);
            }
        }
    }

    /// Whatever command is added: an error that repeats its arguments has to say so.
    #[test]
    fn no_command_records_an_argument_with_its_errors() {
        let mut client = Client::new();
        let mut echoes = 0;
        check_command(&mut client, &[MARK], table::all().next().expect("commands"), &mut echoes);
        for spec in table::all() {
            check_command(&mut client, &[spec.name], spec, &mut echoes);
            for sub in spec.subcommands {
                let (_, word) = sub.name.split_once('|').expect("container|subcommand");
                check_command(&mut client, &[spec.name, word], sub, &mut echoes);
            }
        }
        assert!(echoes > 100, "the marks reach the errors: {echoes}");
    }
}
