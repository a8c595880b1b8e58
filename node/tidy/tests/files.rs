//! Rules about files: each says its purpose, is compiled, and takes the lints.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn files_below(dir: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                files_below(&path, wanted, found);
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files_below(&root(), &|p| p.extension().is_some_and(|e| e == "rs"), &mut found);
    found
}

/// Why `text` does not open with its purpose, if it does not.
fn opens_badly(text: &str) -> bool {
    !text.starts_with("//!")
}

#[test]
fn every_source_file_says_its_purpose() {
    let silent: Vec<_> =
        sources().into_iter().filter(|p| opens_badly(&fs::read_to_string(p).unwrap())).collect();
    assert!(silent.is_empty(), "these do not open with //!: {silent:#?}");
    assert!(opens_badly("use std::fs;"), "the check must catch a silent file");
}

/// A file that no `mod` names is never compiled, and rots unseen.
fn is_compiled(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let dir = path.parent().unwrap();
    let dir_name = dir.file_name().unwrap().to_str().unwrap();
    if matches!(stem, "lib" | "main" | "build")
        || matches!(dir_name, "bin" | "benches" | "examples")
    {
        return true;
    }
    // A test of its own: directly below `tests/` of a package.
    if dir_name == "tests" && dir.parent().unwrap().join("Cargo.toml").exists() {
        return true;
    }
    let (name, parents) = if stem == "mod" {
        let above = dir.parent().unwrap();
        let mut parents = vec![above.join("lib.rs"), above.join("main.rs"), above.join("mod.rs")];
        // Any test binary beside the folder may name it.
        parents.extend(fs::read_dir(above).unwrap().map(|e| e.unwrap().path()));
        (dir_name, parents)
    } else {
        let by_folder = dir.with_extension("rs");
        (stem, vec![dir.join("lib.rs"), dir.join("main.rs"), dir.join("mod.rs"), by_folder])
    };
    let named = |text: &str| {
        text.lines().any(|line| {
            let line = line.trim();
            line.ends_with(&format!("mod {name};"))
                || line.contains(&format!("path = \"{stem}.rs\""))
                || line.contains(&format!("/{stem}.rs\""))
        })
    };
    let mut candidates = parents;
    // Test binaries may name modules that lie beside them, and manifests name binaries.
    candidates.extend(fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()));
    let mut above = Some(dir);
    while let Some(folder) = above {
        let manifest = folder.join("Cargo.toml");
        if manifest.exists() {
            candidates.push(manifest);
            break;
        }
        above = folder.parent();
    }
    candidates.iter().filter_map(|p| fs::read_to_string(p).ok()).any(|text| named(&text))
}

#[test]
fn every_source_file_is_compiled() {
    let orphans: Vec<_> = sources().into_iter().filter(|p| !is_compiled(p)).collect();
    assert!(orphans.is_empty(), "no mod names these: {orphans:#?}");
    assert!(!is_compiled(&root().join("node/tidy/src/orphan.rs")), "the check must catch one");
}

#[test]
fn every_package_takes_the_workspace_lints() {
    let mut manifests = Vec::new();
    files_below(&root(), &|p| p.file_name().is_some_and(|n| n == "Cargo.toml"), &mut manifests);
    for manifest in manifests {
        let text = fs::read_to_string(&manifest).unwrap();
        let inherits = text.contains("[lints]\nworkspace = true");
        assert!(text.contains("[workspace]") || inherits, "{} has no lints", manifest.display());
    }
}

#[test]
fn an_ignored_test_says_why() {
    let bare = ["#[", "ignore", "]"].concat();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&bare), "{} ignores a test without a reason", path.display());
    }
}

/// Names that may follow `docker.sock` in the stack file: services of the core.
fn sees_docker(service: &str) -> bool {
    service.starts_with("core-")
}

/// The services of a stack file that mount the Docker socket or are privileged.
fn privileged_services(stack: &str) -> Vec<String> {
    let (mut in_services, mut service, mut found) = (false, String::new(), Vec::new());
    for line in stack.lines() {
        let text = line.trim();
        let indent = line.len() - line.trim_start().len();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if indent == 0 {
            in_services = text == "services:";
        } else if in_services && indent == 2 && text.ends_with(':') {
            service = text.trim_end_matches(':').to_owned();
        } else if in_services
            && (text.contains("docker.sock") || text.replace(' ', "") == "privileged:true")
            && !found.contains(&service)
        {
            found.push(service.clone());
        }
    }
    found
}

#[test]
fn only_the_core_sees_the_docker_socket() {
    let stack = fs::read_to_string(root().join("deploy/stack.yml")).unwrap();
    let privileged = privileged_services(&stack);
    assert!(!privileged.is_empty(), "the stack file names no docker.sock at all");
    for service in privileged {
        assert!(sees_docker(&service), "{service} mounts the Docker socket or is privileged");
    }
}

#[test]
fn a_proxy_with_the_docker_socket_is_caught() {
    let stack = "services:\n  proxy:\n    volumes:\n      - /var/run/docker.sock:/x\n";
    assert_eq!(privileged_services(stack), ["proxy"]);
}
