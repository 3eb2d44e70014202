//! One line of CLIENT LIST, as Redis 7.2 writes it.

use std::borrow::Cow;
use std::io::Write;

use ferrite_resp::Protocol;

use crate::host::ClientInfo;
use crate::session::Session;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientType {
    Normal,
    Master,
    Replica,
    Pubsub,
}

impl ClientType {
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        Some(match &name.to_ascii_lowercase()[..] {
            b"normal" => ClientType::Normal,
            b"master" => ClientType::Master,
            b"slave" | b"replica" => ClientType::Replica,
            b"pubsub" => ClientType::Pubsub,
            _ => return None,
        })
    }
}

impl ClientInfo {
    /// What the session itself knows better than the registry, which hears of it only after the batch.
    pub(super) fn take_from(&mut self, session: &Session) {
        self.name.clone_from(&session.name);
        self.lib_name.clone_from(&session.lib_name);
        self.lib_ver.clone_from(&session.lib_ver);
        self.db = session.db;
        self.resp = match session.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        self.multi = session.multi.as_ref().map_or(-1, |queue| queue.commands.len() as i64);
        self.no_evict = session.no_evict;
        self.no_touch = session.no_touch;
        self.idle_s = 0;
        self.last_command = Cow::Borrowed(session.last_command);
    }
}

/// The session's own entry.
pub(super) fn own_info(session: &Session, clients: Vec<ClientInfo>) -> ClientInfo {
    let mut own = clients.into_iter().find(|client| client.id == session.id).unwrap_or_else(|| ClientInfo {
        id: session.id,
        addr: session.addr.to_string(),
        laddr: session.laddr.to_string(),
        fd: -1,
        ..ClientInfo::default()
    });
    own.take_from(session);
    own
}

/// Appends the line with its end. The fields that Ferrite has nothing to say about (subscriptions, redirection) are
/// what they are for a client of Redis that does without.
pub(super) fn info_line(client: &ClientInfo, closing: bool, out: &mut Vec<u8>) {
    let mut flags = String::new();
    for (on, letter) in [
        (client.multi >= 0, 'x'),
        (client.blocked, 'b'),
        (closing, 'c'),
        (client.no_evict, 'e'),
        (client.no_touch, 'T'),
    ] {
        if on {
            flags.push(letter);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let events = if client.output_buffer > 0 { "rw" } else { "r" };
    put(out, format_args!("id={} addr={} laddr={} fd={} name=", client.id, client.addr, client.laddr, client.fd));
    out.extend_from_slice(&client.name);
    put(
        out,
        format_args!(
            " age={} idle={} flags={flags} db={} sub=0 psub=0 ssub=0 multi={}",
            client.age_s, client.idle_s, client.db, client.multi
        ),
    );
    put(
        out,
        format_args!(
            " qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs={} rbp={} obl={} oll=0 omem={} tot-mem={}",
            client.query_buffer,
            client.query_buffer_free,
            client.argument_memory,
            client.multi_memory,
            client.output_capacity,
            client.output_peak,
            client.output_buffer,
            client.output_memory,
            client.total_memory,
        ),
    );
    put(
        out,
        format_args!(
            " events={events} cmd={} user=default redir=-1 resp={} lib-name=",
            client.last_command, client.resp
        ),
    );
    out.extend_from_slice(&client.lib_name);
    out.extend_from_slice(b" lib-ver=");
    out.extend_from_slice(&client.lib_ver);
    out.push(b'\n');
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Client;

    #[test]
    fn a_line_has_redis_7_2_s_fields_in_their_order() {
        let client = ClientInfo {
            id: 3,
            addr: "127.0.0.1:5000".into(),
            laddr: "127.0.0.1:6379".into(),
            fd: 8,
            name: b"me".to_vec(),
            age_s: 12,
            multi: -1,
            resp: 2,
            query_buffer: 26,
            query_buffer_free: 20448,
            last_command: "client|list".into(),
            ..ClientInfo::default()
        };
        let mut line = Vec::new();
        info_line(&client, false, &mut line);
        assert_eq!(
            String::from_utf8(line).expect("ASCII"),
            "id=3 addr=127.0.0.1:5000 laddr=127.0.0.1:6379 fd=8 name=me age=12 idle=0 flags=N db=0 sub=0 psub=0 ssub=0 \
             multi=-1 qbuf=26 qbuf-free=20448 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r \
             cmd=client|list user=default redir=-1 resp=2 lib-name= lib-ver=\n"
        );
    }

    #[test]
    fn list_chooses_by_id_and_type_and_knows_its_own_session_best() {
        let mut client = Client::new();
        *client.host.clients.borrow_mut() =
            [5, 7].map(|id| ClientInfo { id, multi: -1, ..Default::default() }).to_vec();
        client.run("CLIENT SETNAME me");
        let all = client.run("CLIENT LIST");
        assert_eq!(all.matches("id=").count(), 2);
        assert!(all.contains("id=7 addr= laddr= fd=0 name=me "));
        assert!(all.contains(" cmd=client|list "));
        assert!(client.run("CLIENT LIST ID 5 99").contains("id=5 "));
        assert_eq!(client.run("CLIENT LIST ID 99"), "$0\r\n\r\n");
        assert_eq!(client.run("CLIENT LIST TYPE pubsub"), "$0\r\n\r\n");
        assert_eq!(client.run("CLIENT LIST TYPE normal"), all);
        assert_eq!(client.run("CLIENT LIST TYPE x"), "-ERR Unknown client type 'x'\r\n");
        assert_eq!(client.run("CLIENT LIST ID x"), "-ERR Invalid client ID\r\n");
        assert_eq!(client.run("CLIENT LIST x"), "-ERR syntax error\r\n");
        client.run("HELLO 3");
        assert!(client.run("CLIENT LIST").starts_with('='));
    }
}
