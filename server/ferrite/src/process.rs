//! What the operating system says of this process, for INFO.

use ferrite_node::ProcessFigures;

/// Clock ticks a second in `/proc`: a constant of Linux's interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;
/// Memory is counted in pages there.
const PAGE_BYTES: u64 = 4096;

/// `Linux 6.1.0 x86_64`.
pub fn os() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {} {}", release.trim(), std::env::consts::ARCH)
}

/// What OpenTelemetry's semantic conventions say about a process, its host and its container. Arguments are left out: they may hold a password.
#[cfg(feature = "otel")]
pub fn resource() -> Vec<(&'static str, ferrite_telemetry::Value)> {
    use ferrite_telemetry::Value;

    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let executable = std::env::current_exe().unwrap_or_default();
    let name = executable.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let texts = [
        ("host.name", read("/proc/sys/kernel/hostname")),
        ("host.arch", arch.to_owned()),
        ("os.type", std::env::consts::OS.to_owned()),
        ("os.version", read("/proc/sys/kernel/osrelease")),
        ("process.executable.name", name),
        ("process.executable.path", executable.to_string_lossy().into_owned()),
        ("container.id", crate::container::id().unwrap_or_default()),
    ];
    let known = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let pid = ("process.pid", Value::Int(std::process::id().into()));
    known.map(|(key, text)| (key, Value::Str(text.into()))).chain([pid]).collect()
}

/// Nanoseconds since the Unix epoch, for log lines.
pub fn unix_ns() -> u64 {
    ferrite_io::Clock::unix_ns(&ferrite_io_real::RealClock::default())
}

/// Figures that cannot be read are 0, as INFO shows what does not apply.
pub fn figures() -> ProcessFigures {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the command's name, which may hold blanks and ends with the last parenthesis.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident: u64 = statm.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total_kib: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or_default();
    ProcessFigures {
        rss_bytes: resident * PAGE_BYTES,
        system_memory_bytes: total_kib * 1024,
        cpu_user_s: ticks(11) / TICKS_PER_SECOND,
        cpu_system_s: ticks(12) / TICKS_PER_SECOND,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_and_a_system() {
        let figures = super::figures();
        assert!(figures.rss_bytes > 0 && figures.system_memory_bytes > figures.rss_bytes);
        assert!(super::os().starts_with("Linux "));
    }

    #[cfg(feature = "otel")]
    #[test]
    fn the_resource_tells_of_host_system_and_process() {
        let resource = super::resource();
        let get = |key: &str| resource.iter().find(|(known, _)| *known == key).map(|(_, value)| value.to_string());
        assert_eq!(get("os.type").as_deref(), Some("linux"));
        assert_eq!(get("process.pid"), Some(std::process::id().to_string()));
        assert!(
            ["host.name", "host.arch", "os.version", "process.executable.name"].iter().all(|key| get(key).is_some())
        );
    }
}
