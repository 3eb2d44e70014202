//! The id of the container in which the process runs, for `container.id` (OpenTelemetry semantic conventions, container).
//!
//! Nobody tells a process; it is read off the kernel's view of it. With control groups of version 1, and of version 2 where the
//! container sees the host's names, the group is named after the container. Otherwise the runtime's files give it away that are mounted
//! into it, such as `/etc/hostname`. What names a pod and not the container (`/sandboxes/`) is not taken for one.

/// Hexadecimal digits of an id, with each known runtime.
const DIGITS: usize = 64;

/// `None`: it is in none, or in one that does not show.
pub fn id() -> Option<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    of_groups(&read("/proc/self/cgroup")).or_else(|| of_mounts(&read("/proc/self/mountinfo")))
}

/// Of lines such as `4:memory:/docker/ID` or `0::/kubepods.slice/cri-containerd-ID.scope`.
fn of_groups(groups: &str) -> Option<String> {
    groups.lines().find_map(|line| {
        let (_, last) = line.rsplit_once('/')?;
        let name = last.strip_suffix(".scope").unwrap_or(last);
        // Behind the runtime's name, or behind its colon (`kubepods-pod….slice:cri-containerd:ID`).
        whole_id(name.rsplit(['-', ':']).next()?)
    })
}

/// Of lines whose fourth field is what is mounted, such as `/var/lib/docker/containers/ID/hostname`.
fn of_mounts(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let root = line.split(' ').nth(3)?;
        // Podman's and CRI-O's folder is called `overlay-containers`.
        let inside = |(folder, part): (&str, &str)| folder.ends_with("containers").then(|| whole_id(part)).flatten();
        root.split('/').zip(root.split('/').skip(1)).find_map(inside)
    })
}

fn whole_id(text: &str) -> Option<String> {
    let is_id = text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_control_group_is_named_after_its_container() {
        for line in [
            "13:name=systemd:/docker/ID",
            "11:memory:/kubepods/burstable/pod1f0-22/ID",
            "0::/system.slice/docker-ID.scope",
            "0::/kubepods.slice/kubepods-pod1f0.slice/cri-containerd-ID.scope",
            "1:cpu:/kubepods-pod1f0.slice:cri-containerd:ID",
            "0::/machine.slice/libpod-ID.scope",
        ] {
            let groups = format!("7:freezer:/\n{}\n0::/\n", line.replace("ID", ID));
            assert_eq!(of_groups(&groups).as_deref(), Some(ID), "{line}");
        }
    }

    #[test]
    fn what_the_runtime_mounts_names_the_container() {
        for root in [
            "/var/lib/docker/containers/ID/hostname",
            "/containers/storage/overlay-containers/ID/userdata/hostname",
            "/var/lib/containers/storage/overlay-containers/ID/userdata/resolv.conf",
        ] {
            let line = format!("722 718 254:1 {root} /etc/hostname rw,relatime - ext4 /dev/vda1 rw").replace("ID", ID);
            let mounts = format!("700 600 0:50 / / rw - overlay overlay rw\n{line}\n");
            assert_eq!(of_mounts(&mounts).as_deref(), Some(ID), "{root}");
        }
    }

    #[test]
    fn what_is_no_container_has_no_id() {
        let short = &ID[1..];
        for groups in
            ["", "0::/\n", "0::/init.scope\n", "0::/user.slice/session-3.scope\n", &format!("0::/docker/{short}")]
        {
            assert_eq!(of_groups(groups), None, "{groups}");
        }
        let sandbox =
            format!("9 8 254:1 /var/lib/containerd/grpc.v1.cri/sandboxes/{ID}/hostname /etc/hostname rw - ext4 a b");
        assert_eq!(of_mounts(&sandbox), None);
        assert_eq!(of_mounts("half a line"), None);
    }
}
