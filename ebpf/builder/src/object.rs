//! What the object must satisfy before anyone tries to load it.

use object::{Object as _, ObjectSymbol as _};

/// What is wrong with an object.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Not an ELF file that can be read.
    #[error("not an object file")]
    Parse(#[source] object::Error),
    /// Not built for BPF.
    #[error("built for {0:?}, not for BPF")]
    Architecture(object::Architecture),
    /// It can panic, and the kernel would only say that the last instruction is not an exit.
    #[error(
        "code that can panic was linked in ({}): an index, a division or an unwrap by a runtime value is left in the programs",
        .0.join(", ")
    )]
    Panics(Vec<String>),
    /// It holds no program.
    #[error("no program in it")]
    Empty,
}

/// Refuses an object that the kernel would refuse for reasons that it words badly.
///
/// # Errors
/// When the bytes are no BPF object, hold no program, or hold a symbol of the panic machinery.
pub fn check(bytes: &[u8]) -> Result<(), CheckError> {
    let file = object::File::parse(bytes).map_err(CheckError::Parse)?;
    if file.architecture() != object::Architecture::Bpf {
        return Err(CheckError::Architecture(file.architecture()));
    }
    let names = || file.symbols().filter_map(|s| s.name().ok().map(str::to_owned));
    let panics: Vec<String> = names().filter(|n| is_panic(n)).collect();
    if !panics.is_empty() {
        return Err(CheckError::Panics(panics));
    }
    if !file.symbols().any(|s| s.kind() == object::SymbolKind::Text && s.is_global()) {
        return Err(CheckError::Empty);
    }
    Ok(())
}

/// `core::panicking::…`, mangled or not.
fn is_panic(symbol: &str) -> bool {
    symbol.contains("panicking")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_machinery_is_recognised() {
        assert!(is_panic("_ZN4core9panicking18panic_bounds_check17h0123456789abcdefE"));
        assert!(!is_panic("from_endpoint"));
    }

    #[test]
    fn what_is_not_for_bpf_is_refused() {
        assert!(matches!(check(b"no object"), Err(CheckError::Parse(_))));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(matches!(check(&own), Err(CheckError::Architecture(_))));
    }
}
