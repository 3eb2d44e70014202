//! The reply of every `… HELP` subcommand.

use ferrite_resp::Reply;

/// `lines`: a subcommand with its arguments, then lines that explain it, indented by four blanks.
pub fn write(reply: &mut Reply<'_>, command: &str, lines: &[&str]) {
    reply.array(lines.len() + 3);
    reply.simple(format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", command.to_ascii_uppercase()));
    for line in lines {
        reply.simple(line);
    }
    reply.simple("HELP");
    reply.simple("    Prints this help.");
}
