//! Loading, attaching and pinning; taking up what an earlier run left; handing over from another generation of programs.
//!
//! Whatever is attached stays attached until what replaces it is. A crash between any two steps leaves at least one generation that
//! watches, and the next start goes on from there.

use super::error::{SensorError, chain};
use super::layout::{LAYOUT_VERSION, control};
use super::pins::{Generation, generations};
use super::programs::{Hook, PARTS, Part};
use super::{Tier, cgroup};
use aya::maps::{Array, Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program};
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use aya_obj::Object;
use aya_obj::btf::BtfKind;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// The compiled programs.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/node.bpf.o"));

/// Maps whose contents outlive a change of the programs, as long as their layout stays.
const SHARED: [&str; 17] = [
    "control",
    "tuples",
    "tags",
    "processes",
    "opened",
    "watched_files",
    "sessions",
    "sockets",
    "flows",
    "connections",
    "policies",
    "denied",
    "allowed",
    "file_rules",
    "name_rules",
    "seen",
    "lost",
];
/// Maps that are each generation's own.
const OWN: [&str; 4] = ["records", "exec_scratch", "places", "identity_before"];
/// `PLACES_EACH` of shared.h.
pub(super) const PLACES_EACH: u32 = 8;
/// Of the program that sees executions.
const EXEC_COPIES: u32 = 2;

/// What each feature's programs said; the first complaint of several.
pub(super) type Features = BTreeMap<String, Result<(), String>>;

/// What loading came to.
pub(super) struct Loaded {
    pub(super) generation: Generation,
    pub(super) features: Features,
    /// Other generations, still attached.
    others: Vec<Generation>,
    /// This run made it.
    fresh: bool,
    /// The generation that sent until now; 0: none.
    before: u64,
}

/// How many CPUs may ever be here: each has its own memory to put an exec's record together.
fn cpus() -> Result<u32, SensorError> {
    let count = aya::util::nr_cpus()
        .map_err(|(path, error)| SensorError::file(Path::new(path), "reading it", error))?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The number of the generation that this build makes with these options.
fn generation_id(tier: Tier, ring_bytes: u32, cpus: u32) -> u64 {
    let mut options = Vec::new();
    options.push(matches!(tier, Tier::Lsm).into());
    options.extend_from_slice(&ring_bytes.to_le_bytes());
    options.extend_from_slice(&cpus.to_le_bytes());
    u64::from(crc32c::crc32c(OBJECT)) << 32 | u64::from(crc32c::crc32c(&options))
}

/// Loads this build's programs below `pins`, or takes them up, and lets them send; those of other generations are attached still, and
/// only watch. What it made anew goes again when it fails.
pub(super) fn load(pins: &Path, tier: Tier, ring_bytes: u32) -> Result<Loaded, SensorError> {
    let cpus = cpus()?;
    let own = Generation::new(pins, generation_id(tier, ring_bytes, cpus));
    let others: Vec<Generation> = generations(pins)?.into_iter().filter(|other| *other != own).collect();
    let fresh = !own.exists();
    let sizes = BTreeMap::from([
        ("records", ring_bytes),
        ("exec_scratch", cpus.saturating_mul(EXEC_COPIES)),
        ("places", cpus.saturating_mul(PLACES_EACH)),
    ]);
    let loaded = fill(&own, &others, &sizes, tier).and_then(|features| {
        let before = send_instead(&own)?;
        Ok(Loaded { generation: own.clone(), features, others, fresh, before })
    });
    if loaded.is_err() && fresh {
        own.remove_with_parent()?;
    }
    loaded
}

/// Everything of a generation, attached and pinned.
fn fill(
    own: &Generation,
    others: &[Generation],
    sizes: &BTreeMap<&str, u32>,
    tier: Tier,
) -> Result<Features, SensorError> {
    own.create()?;
    take_over_maps(own, others, sizes)?;
    let btf = Btf::from_sys_fs().map_err(|error| {
        SensorError::kernel(
            "reading /sys/kernel/btf/vmlinux (a kernel built with CONFIG_DEBUG_INFO_BTF has it)",
            error,
        )
    })?;
    let mut object = open(own, sizes, &btf)?;
    check_layout(own)?;
    let features = attach_all(&mut object, own, tier, &btf);
    essentials(&features, tier)?;
    Ok(features)
}

/// From here on this generation sends; gives which did.
fn send_instead(own: &Generation) -> Result<u64, SensorError> {
    let failed = |error| SensorError::kernel("letting the new programs send", error);
    let mut control = control_of(own)?;
    let before = control.get(&control::GENERATION, 0).map_err(failed)?;
    control.set(control::GENERATION, own.id, 0).map_err(failed)?;
    Ok(before)
}

impl Loaded {
    /// It has shown that it works: the others are detached; their maps wait until their rings are read.
    pub(super) fn keep(self) -> Result<Vec<Generation>, SensorError> {
        for other in &self.others {
            other.detach()?;
        }
        Ok(self.others)
    }

    /// It has shown that it doesn't: who sent before sends again. What an earlier run left stays, since sessions may run under it.
    pub(super) fn take_back(self) -> Result<(), SensorError> {
        if !self.fresh {
            return Ok(());
        }
        control_of(&self.generation)?
            .set(control::GENERATION, self.before, 0)
            .map_err(|error| SensorError::kernel("letting the old programs send again", error))?;
        self.generation.remove_with_parent()
    }
}

/// The array `control` of a generation.
pub(super) fn control_of(generation: &Generation) -> Result<Array<MapData, u64>, SensorError> {
    open_map(generation, "control")
}

/// A map by its pin, as the type that it has.
pub(super) fn open_map<T>(generation: &Generation, name: &str) -> Result<T, SensorError>
where
    T: TryFrom<Map>,
    T::Error: std::error::Error,
{
    let path = generation.map(name);
    let what = || format!("opening the map {}", path.display());
    let data = MapData::from_pin(&path).map_err(|error| SensorError::kernel(what(), error))?;
    let map = Map::from_map_data(data).map_err(|error| SensorError::kernel(what(), error))?;
    T::try_from(map).map_err(|error| SensorError::kernel(what(), error))
}

/// Pins the maps that are there already into this generation, once the kernel has confirmed that they are what the programs expect:
/// the loader takes a pinned map as it is.
fn take_over_maps(
    own: &Generation,
    others: &[Generation],
    sizes: &BTreeMap<&str, u32>,
) -> Result<(), SensorError> {
    let object =
        Object::parse(OBJECT).map_err(|error| SensorError::kernel("reading the programs' object", error))?;
    for name in SHARED.iter().chain(&OWN).copied() {
        let Some(wanted) = object.maps.get(name) else { continue };
        let entries = sizes.get(name).copied().unwrap_or(wanted.max_entries());
        let fits = |path: &Path| -> Result<Option<MapData>, SensorError> {
            let Ok(map) = MapData::from_pin(path) else { return Ok(None) };
            let info = map
                .info()
                .map_err(|error| SensorError::kernel(format!("asking about {}", path.display()), error))?;
            let same = info.map_type().is_ok_and(|kind| kind as u32 == wanted.map_type())
                && info.key_size() == wanted.key_size()
                && info.value_size() == wanted.value_size()
                && info.max_entries() == entries
                && info.map_flags() == wanted.map_flags();
            Ok(same.then_some(map))
        };
        let path = own.map(name);
        if path.exists() {
            if fits(&path)?.is_none() {
                return Err(damaged(&path));
            }
            continue;
        }
        if OWN.contains(&name) {
            continue;
        }
        for other in others {
            let there = other.map(name);
            if !there.exists() {
                continue;
            }
            match fits(&there)? {
                Some(map) => map
                    .pin(&path)
                    .map_err(|error| SensorError::kernel(format!("pinning {}", path.display()), error))?,
                // Without the old tags and counters running sessions would be lost: that is for a person to decide.
                None if matches!(name, "tags" | "control" | "seen" | "lost") => return Err(damaged(&there)),
                None => continue,
            }
            break;
        }
    }
    Ok(())
}

/// Sizes may agree where meanings don't.
fn check_layout(own: &Generation) -> Result<(), SensorError> {
    let mut control = control_of(own)?;
    let failed = |error| SensorError::kernel("reading the kernel's map `control`", error);
    match control.get(&control::LAYOUT, 0).map_err(failed)? {
        0 => control.set(control::LAYOUT, LAYOUT_VERSION, 0).map_err(failed),
        LAYOUT_VERSION => Ok(()),
        _ => Err(damaged(&own.map("control"))),
    }
}

fn damaged(path: &Path) -> SensorError {
    SensorError::Kernel {
        what: format!("taking up {}", path.display()),
        why: "another version made it, with another layout: once no session is open on this machine, remove that generation's directory, or restart the machine"
            .to_owned(),
    }
}

fn open(own: &Generation, sizes: &BTreeMap<&str, u32>, btf: &Btf) -> Result<Ebpf, SensorError> {
    let mut loader = EbpfLoader::new();
    loader.btf(Some(btf)).allow_unsupported_maps().override_global("generation", &own.id, true);
    let places = sizes.get("places").copied().unwrap_or(1);
    loader.override_global("places_count", &places, true);
    for (name, entries) in sizes {
        loader.map_max_entries(name, *entries);
    }
    for name in SHARED.iter().chain(&OWN) {
        loader.map_pin_path(name, own.map(name));
    }
    loader.load(OBJECT).map_err(|error| SensorError::kernel("loading the programs' maps", error))
}

fn attach_all(object: &mut Ebpf, own: &Generation, tier: Tier, btf: &Btf) -> Features {
    let root = cgroup::root()
        .and_then(|path| File::open(&path).map_err(|error| SensorError::file(&path, "opening it", error)));
    let mut features = Features::new();
    for part in PARTS.iter().filter(|part| part.tier.is_none_or(|only| only == tier)) {
        let lacks_hook = || part.may_lack_hook && !has_hook(btf, part.hook);
        let outcome = if own.link(part.program).exists() || lacks_hook() {
            Ok(())
        } else {
            attach_either(object, own, part, btf, &root)
        };
        for feature in [part.feature].iter().chain(part.also) {
            let entry = features.entry((*feature).to_owned()).or_insert(Ok(()));
            if let (Ok(()), Err(why)) = (&entry, &outcome) {
                *entry = Err(format!("{}: {why}", part.program));
            }
        }
    }
    for part in PARTS.iter().filter(|part| part.tier.is_some_and(|only| only != tier)) {
        let missing = || Err("only the tier of LSM hooks has it".to_owned());
        features.entry(part.feature.to_owned()).or_insert_with(missing);
    }
    features
}

/// Whether the kernel has that hook of its security modules.
fn has_hook(btf: &Btf, hook: Hook) -> bool {
    let Hook::Lsm(name) = hook else { return true };
    btf.id_by_type_name_kind(&format!("bpf_lsm_{name}"), BtfKind::Func).is_ok()
}

/// Attaches a part's program, or the one that stands in for it; complains of the first.
fn attach_either(
    object: &mut Ebpf,
    own: &Generation,
    part: &Part,
    btf: &Btf,
    root: &Result<File, SensorError>,
) -> Result<(), String> {
    attach(object, own, part, part.program, btf, root).or_else(|why| match part.fallback {
        Some(fallback) => attach(object, own, part, fallback, btf, root)
            .map_err(|other| format!("{why}; {fallback}: {other}")),
        None => Err(why),
    })
}

/// Loads one program and attaches it; the pin of its link keeps both when we are gone.
fn attach(
    object: &mut Ebpf,
    own: &Generation,
    part: &Part,
    name: &str,
    btf: &Btf,
    root: &Result<File, SensorError>,
) -> Result<(), String> {
    fn say(error: impl std::error::Error) -> String {
        chain(&error)
    }
    let program = object.program_mut(name).ok_or("it isn't in the object")?;
    let cgroup = || root.as_ref().map_err(ToString::to_string);
    let link: FdLink = match (program, part.hook) {
        (Program::BtfTracePoint(program), Hook::Tracepoint(name)) => {
            program.load(name, btf).map_err(say)?;
            let id = program.attach().map_err(say)?;
            program.take_link(id).map_err(say)?.into()
        }
        (Program::Lsm(program), Hook::Lsm(name)) => {
            program.load(name, btf).map_err(say)?;
            let id = program.attach().map_err(say)?;
            program.take_link(id).map_err(say)?.into()
        }
        (Program::FExit(program), Hook::Return(name)) => {
            program.load(name, btf).map_err(say)?;
            let id = program.attach().map_err(say)?;
            program.take_link(id).map_err(say)?.into()
        }
        (Program::CgroupSockAddr(program), Hook::CgroupAddress) => {
            program.load().map_err(say)?;
            // Links are many on a cgroup whatever the mode, which the kernel doesn't take here.
            let id = program.attach(cgroup()?, CgroupAttachMode::Single).map_err(say)?;
            program.take_link(id).map_err(say)?.try_into().map_err(say)?
        }
        (Program::CgroupSock(program), Hook::CgroupSocket) => {
            program.load().map_err(say)?;
            let id = program.attach(cgroup()?, CgroupAttachMode::Single).map_err(say)?;
            program.take_link(id).map_err(say)?.try_into().map_err(say)?
        }
        (Program::SockOps(program), Hook::CgroupTcp) => {
            program.load().map_err(say)?;
            let id = program.attach(cgroup()?, CgroupAttachMode::Single).map_err(say)?;
            program.take_link(id).map_err(say)?.try_into().map_err(say)?
        }
        (Program::CgroupSkb(program), Hook::CgroupPacket(way)) => {
            program.load().map_err(say)?;
            let id = program.attach(cgroup()?, way, CgroupAttachMode::Single).map_err(say)?;
            program.take_link(id).map_err(say)?.try_into().map_err(say)?
        }
        _ => return Err("it is of another type than its hook".to_owned()),
    };
    link.pin(own.link(part.program)).map_err(say)?;
    Ok(())
}

/// Whether an earlier run of this build has pinned its programs of that tier.
pub(super) fn is_pinned(pins: &Path, tier: Tier, ring_bytes: u32) -> Result<bool, SensorError> {
    Ok(Generation::new(pins, generation_id(tier, ring_bytes, cpus()?)).exists())
}

fn essentials(features: &Features, tier: Tier) -> Result<(), SensorError> {
    for part in PARTS.iter().filter(|part| part.essential && part.tier.is_none_or(|only| only == tier)) {
        if let Some(Err(why)) = features.get(part.feature) {
            return Err(SensorError::Missing { feature: part.feature, why: why.clone() });
        }
    }
    Ok(())
}
