//! The fault model of the disk, case by case: what survives a kill, what a power cut, and that every outcome occurs.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::super::{DiskFault, DiskFaults, NodeId, PerMillion, PowerCut, Simulation, SimulationOptions};
use crate::runtime::{Buffer, Durability, File, OpenMode, Slice, directory};
use crate::types::ShardId;

const SHARD: ShardId = ShardId(0);
const BLOCK: usize = 4096;
const PATH: &str = "/file";

fn blocks(fill: u8, count: usize) -> Slice {
    let mut buffer = Buffer::with_capacity(count * BLOCK);
    buffer.append_with(count * BLOCK, |room| room.fill(fill));
    buffer.freeze()
}

async fn write(file: &File, position: u64, fill: u8, count: usize, durability: Durability) -> io::Result<()> {
    file.write_at(position, vec![blocks(fill, count)], durability).await.0
}

async fn open(mode: OpenMode) -> File {
    File::open(PATH.as_ref(), mode).await.unwrap()
}

async fn read(file: &File, position: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let (result, buffer) = file.read_at(position, bytes, Buffer::with_capacity(bytes)).await;
    result.map(|_| buffer.to_vec())
}

/// A durable, named file of `count` blocks of 1.
async fn durable_file(count: usize) -> File {
    let file = open(OpenMode::Create).await;
    write(&file, 0, 1, count, Durability::Written).await.unwrap();
    file.sync().await.unwrap();
    directory::sync("/".as_ref()).await.unwrap();
    file
}

struct Scene {
    simulation: Simulation,
    node: NodeId,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let options = SimulationOptions { disk_bytes: 1 << 20, ..SimulationOptions::default() };
        let simulation = Simulation::new(seed, options);
        let node = simulation.add_node(1);
        Scene { simulation, node }
    }

    fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        self.simulation.run_on(self.node, SHARD, future).unwrap().unwrap()
    }

    fn cut(&self, cut: PowerCut) {
        self.simulation.power_cut(self.node, cut);
        self.simulation.restart(self.node);
    }

    fn power_cut(&self) {
        self.cut(PowerCut::OldOrNew);
    }

    fn kill(&self) {
        self.simulation.kill(self.node);
        self.simulation.restart(self.node);
    }

    fn content(&self) -> io::Result<Vec<u8>> {
        self.simulation.peek(self.node, Path::new(PATH))
    }
}

#[test]
fn a_durable_write_survives_every_power_cut_with_its_length() {
    for seed in 0..100 {
        let scene = Scene::new(seed);
        scene.run(async {
            let file = durable_file(1).await;
            write(&file, 4096, 2, 2, Durability::Durable).await.unwrap();
        });
        scene.power_cut();
        let content = scene.content().unwrap();
        assert!(content.len() == 3 * BLOCK && content[BLOCK..].iter().all(|&byte| byte == 2), "seed {seed}");
        assert_eq!(scene.simulation.counters().sectors_lost, 0);
    }
}

#[test]
fn a_durable_write_makes_only_itself_durable() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let scene = Scene::new(seed);
        scene.run(async {
            let file = durable_file(2).await;
            write(&file, 0, 2, 1, Durability::Written).await.unwrap();
            write(&file, 4096, 3, 1, Durability::Durable).await.unwrap();
        });
        scene.power_cut();
        let content = scene.content().unwrap();
        assert!(content[BLOCK..].iter().all(|&byte| byte == 3), "seed {seed}");
        seen.insert(content[0]);
    }
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[test]
fn a_durable_write_supersedes_earlier_ones_of_its_blocks() {
    for seed in 0..50 {
        let scene = Scene::new(seed);
        scene.run(async {
            let file = durable_file(1).await;
            write(&file, 0, 2, 1, Durability::Written).await.unwrap();
            write(&file, 0, 3, 1, Durability::Durable).await.unwrap();
        });
        scene.power_cut();
        assert_eq!(scene.content().unwrap(), vec![3; BLOCK], "seed {seed}");
    }
}

#[test]
fn every_subset_of_sectors_occurs_and_nothing_else() {
    let mut seen = BTreeSet::new();
    let mut torn = 0;
    for seed in 0..200 {
        let scene = Scene::new(seed);
        scene.run(async { write(&durable_file(1).await, 0, 2, 1, Durability::Written).await.unwrap() });
        scene.power_cut();
        let content = scene.content().unwrap();
        for sector in content.chunks(512) {
            assert!(sector.iter().all(|&byte| byte == sector[0]) && [1, 2].contains(&sector[0]), "seed {seed}");
        }
        seen.insert((content[0], content[512]));
        let counters = scene.simulation.counters();
        assert_eq!(counters.writes_torn + counters.writes_lost + counters.writes_kept, 1);
        torn += counters.writes_torn;
    }
    assert_eq!(seen, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
    assert!((50..190).contains(&torn), "{torn}");
}

#[test]
fn any_of_several_versions_of_a_sector_occurs() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let scene = Scene::new(seed);
        scene.run(async {
            let file = durable_file(1).await;
            write(&file, 0, 2, 1, Durability::Written).await.unwrap();
            write(&file, 0, 3, 1, Durability::Written).await.unwrap();
        });
        scene.power_cut();
        seen.extend(scene.content().unwrap().chunks(512).map(|sector| sector[0]));
    }
    assert_eq!(seen, BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_write_in_flight_is_torn_by_a_power_cut() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let scene = Scene::new(seed);
        scene.run(async { drop(durable_file(4).await) });
        scene.simulation.power_cut_after(scene.node, 2, PowerCut::OldOrNew);
        let ended = scene.simulation.run_on(scene.node, SHARD, async {
            let file = open(OpenMode::Write).await;
            let _ = write(&file, 0, 2, 4, Durability::Durable).await;
            std::future::pending::<()>().await;
        });
        assert_eq!(ended, Ok(None));
        let content = scene.content().unwrap();
        seen.insert(content.chunks(512).filter(|sector| sector[0] == 2).count());
    }
    assert!(seen.contains(&0) && seen.contains(&32) && seen.len() > 10, "{seen:?}");
}

#[test]
fn a_sync_makes_everything_durable_that_was_written() {
    for seed in 0..50 {
        let scene = Scene::new(seed);
        scene.run(async {
            let file = durable_file(1).await;
            write(&file, 0, 2, 8, Durability::Written).await.unwrap();
            write(&file, 4096, 3, 1, Durability::Written).await.unwrap();
            file.allocate(0, 100_000).await.unwrap();
            file.sync().await.unwrap();
        });
        scene.power_cut();
        let content = scene.content().unwrap();
        assert_eq!(content.len(), 100_000);
        assert!(content[..BLOCK].iter().all(|&byte| byte == 2) && content[BLOCK..2 * BLOCK].iter().all(|&b| b == 3));
        assert!(content[8 * BLOCK..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_length_that_was_not_synced_may_be_lost_and_new_space_reads_as_zeros() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let scene = Scene::new(seed);
        scene.run(async {
            let file = durable_file(2).await;
            file.set_length(4096).await.unwrap();
            file.allocate(0, 3 * 4096).await.unwrap();
            assert!(read(&file, 4096, 8192).await.unwrap().iter().all(|&byte| byte == 0));
        });
        scene.power_cut();
        let content = scene.content().unwrap();
        let second = content.get(BLOCK).copied();
        // The old bytes show only where the shortening itself was lost.
        assert!(second != Some(1) || content.len() == 2 * BLOCK, "seed {seed}");
        seen.insert((content.len() / BLOCK, second));
    }
    assert_eq!(seen, BTreeSet::from([(2, Some(1)), (1, None), (3, Some(0))]));
}

#[test]
fn a_name_is_durable_with_its_directory_only() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let scene = Scene::new(seed);
        scene.run(async {
            let file = open(OpenMode::Create).await;
            file.sync().await.unwrap();
        });
        scene.power_cut();
        seen.insert(scene.content().is_ok());
    }
    assert_eq!(seen, BTreeSet::from([false, true]));
}

#[test]
fn a_rename_is_atomic_and_lost_without_a_sync() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let scene = Scene::new(seed);
        let names = scene.run(async {
            drop(durable_file(1).await);
            directory::replace("/small".as_ref(), b"first").await.unwrap();
            File::open("/new".as_ref(), OpenMode::Create).await.unwrap();
            directory::sync("/".as_ref()).await.unwrap();
            directory::rename(PATH.as_ref(), "/small".as_ref()).await.unwrap();
            directory::rename("/new".as_ref(), "/file".as_ref()).await.unwrap();
            directory::remove_file("/file".as_ref()).await.unwrap();
            names_of(directory::list("/".as_ref()).await.unwrap())
        });
        assert_eq!(names, ["small"]);
        scene.power_cut();
        let names = scene.run(async { names_of(directory::list("/".as_ref()).await.unwrap()) });
        let small = scene.simulation.peek(scene.node, "/small".as_ref()).unwrap().len();
        seen.insert((names.join(" "), small));
    }
    let expected = [
        ("file new small", 5), // nothing
        ("new small", BLOCK),  // the first rename; the others build on it
        ("file small", BLOCK), // and the second
        ("small", BLOCK),      // all
    ];
    assert_eq!(seen, expected.map(|(names, small)| (names.to_owned(), small)).into());
}

fn names_of(entries: Vec<directory::Entry>) -> Vec<String> {
    entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn a_synced_directory_keeps_its_names() {
    for seed in 0..50 {
        let scene = Scene::new(seed);
        scene.run(async {
            directory::create("/d".as_ref()).await.unwrap();
            directory::sync("/".as_ref()).await.unwrap();
            directory::replace("/d/one".as_ref(), b"old").await.unwrap();
            directory::replace("/d/one".as_ref(), b"newer").await.unwrap();
            directory::replace("/d/two".as_ref(), b"2").await.unwrap();
            directory::remove_file("/d/two".as_ref()).await.unwrap();
            directory::sync("/d".as_ref()).await.unwrap();
        });
        scene.power_cut();
        let (names, one) = scene.run(async {
            let names = names_of(directory::list("/d".as_ref()).await.unwrap());
            (names, directory::read("/d/one".as_ref(), 100).await.unwrap())
        });
        assert_eq!((names.join(" ").as_str(), one.as_slice()), ("one", b"newer".as_slice()), "seed {seed}");
    }
}

#[test]
fn a_kill_keeps_what_was_written_and_frees_the_lock() {
    for seed in 0..50 {
        let scene = Scene::new(seed);
        scene.run(async {
            let file = open(OpenMode::Create).await;
            write(&file, 0, 5, 3, Durability::Written).await.unwrap();
            let lock = directory::lock("/lock".as_ref(), "pid 1").await.unwrap();
            let error = directory::lock("/lock".as_ref(), "pid 2").await.err().unwrap();
            assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::WouldBlock, "pid 1".to_owned()));
            std::mem::forget(lock);
        });
        scene.kill();
        assert_eq!(scene.content().unwrap(), vec![5; 3 * BLOCK]);
        scene.run(async { drop(directory::lock("/lock".as_ref(), "pid 3").await.unwrap()) });
        assert_eq!(scene.simulation.peek(scene.node, "/lock".as_ref()).unwrap(), b"pid 3\n");
    }
}

#[test]
fn a_write_under_way_at_a_kill_is_there_or_not_or_in_part() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let scene = Scene::new(seed);
        scene.run(async { drop(durable_file(4).await) });
        scene.simulation.start(scene.node, SHARD, async {
            let file = open(OpenMode::Write).await;
            let _ = write(&file, 0, 2, 4, Durability::Durable).await;
        });
        let writes = scene.simulation.counters().writes;
        let begun = || scene.simulation.counters().writes > writes;
        scene.simulation.run_until(core::time::Duration::from_secs(1), begun).unwrap();
        scene.simulation.kill(scene.node);
        seen.insert(scene.content().unwrap().chunks(512).filter(|sector| sector[0] == 2).count());
    }
    assert!(seen.contains(&0) && seen.contains(&32) && seen.len() > 5, "{seen:?}");
}

#[test]
fn a_failed_sync_leaves_its_writes_in_doubt_for_good() {
    let (mut forgotten, mut lost) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..100 {
        let scene = Scene::new(seed);
        scene.simulation.fail_next(scene.node, DiskFault::SyncError, "file");
        let now = scene.run(async {
            let file = open(OpenMode::Create).await;
            directory::sync("/".as_ref()).await.unwrap();
            write(&file, 0, 9, 2, Durability::Written).await.unwrap();
            assert!(file.sync().await.is_err());
            write(&file, 4096, 8, 1, Durability::Written).await.unwrap();
            file.sync().await.unwrap();
            read(&file, 0, BLOCK).await.unwrap()[0]
        });
        forgotten.insert(now);
        scene.power_cut();
        let content = scene.content().unwrap();
        assert!(content[BLOCK..].iter().all(|&byte| byte == 8), "what was written again is durable");
        lost.insert(content[0]);
    }
    assert_eq!((forgotten, lost), (BTreeSet::from([0, 9]), BTreeSet::from([0, 9])));
}

#[test]
fn errors_come_when_asked_for_and_by_rate() {
    let scene = Scene::new(1);
    let (handle, node) = (scene.simulation.clone(), scene.node);
    handle.fail_next(node, DiskFault::WriteError, "other");
    scene.run(async move {
        let file = durable_file(2).await;
        handle.fail_next(node, DiskFault::ReadError, "file");
        assert_eq!(read(&file, 0, BLOCK).await.unwrap_err().raw_os_error(), Some(5));
        assert!(read(&file, 0, BLOCK).await.is_ok());
        handle.fail_next(node, DiskFault::NameError, "file");
        assert!(directory::remove_file(PATH.as_ref()).await.is_err());
        handle.fail_next(node, DiskFault::NoSpace, "file");
        assert_eq!(file.allocate(0, 8192).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        handle.set_disk_faults(node, DiskFaults { write_errors: PerMillion(500_000), ..DiskFaults::default() });
        let mut failed = 0;
        for _ in 0..100 {
            failed += u32::from(write(&file, 0, 2, 1, Durability::Durable).await.is_err());
        }
        assert!((25..75).contains(&failed), "{failed}");
    });
    assert!(scene.simulation.counters().disk_errors > 25);
}

#[test]
fn corruption_is_silent_and_stays() {
    let scene = Scene::new(3);
    scene.simulation.fail_next(scene.node, DiskFault::BitFlip, "file");
    scene.run(async {
        let file = durable_file(2).await;
        let first = read(&file, 0, 2 * BLOCK).await.unwrap();
        assert_eq!(first.iter().map(|byte| (byte ^ 1).count_ones()).sum::<u32>(), 1);
        assert_eq!(read(&file, 0, 2 * BLOCK).await.unwrap(), first);
    });
    let before = scene.content().unwrap();
    scene.simulation.flip_bit(scene.node, PATH.as_ref(), 700, 3).unwrap();
    scene.simulation.corrupt(scene.node, PATH.as_ref(), 5000, b"stale").unwrap();
    scene.power_cut();
    let after = scene.content().unwrap();
    assert_eq!((after[700] ^ before[700], &after[5000..5005]), (8, b"stale".as_slice()));
}

#[test]
fn a_misdirected_write_reports_success_and_lands_elsewhere() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let scene = Scene::new(seed);
        scene.simulation.fail_next(scene.node, DiskFault::MisdirectedWrite, "file");
        scene.run(async {
            let file = open(OpenMode::Create).await;
            directory::sync("/".as_ref()).await.unwrap();
            file.allocate(0, 4 * BLOCK as u64).await.unwrap();
            write(&file, 0, 7, 1, Durability::Durable).await.unwrap();
        });
        scene.power_cut();
        let content = scene.content().unwrap();
        seen.insert(content.iter().position(|&byte| byte == 7).unwrap() / BLOCK);
    }
    assert!(seen.contains(&3), "{seen:?}");
}

#[test]
fn the_disk_fills_and_removing_makes_room_once_closed() {
    let scene = Scene::new(1);
    scene.run(async {
        let file = open(OpenMode::Create).await;
        file.allocate(0, 1 << 20).await.unwrap();
        assert_eq!(directory::free_bytes("/".as_ref()).await.unwrap(), 0);
        let other = File::open("/other".as_ref(), OpenMode::Create).await.unwrap();
        assert_eq!(write(&other, 0, 1, 1, Durability::Durable).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        write(&file, 0, 1, 1, Durability::Durable).await.unwrap();
        directory::remove_file(PATH.as_ref()).await.unwrap();
        directory::sync("/".as_ref()).await.unwrap();
        assert_eq!(directory::free_bytes("/".as_ref()).await.unwrap(), 0);
        drop(file);
        write(&other, 0, 1, 1, Durability::Durable).await.unwrap();
        let space = directory::Space { total_bytes: 1 << 20, free_bytes: (1 << 20) - BLOCK as u64 };
        assert_eq!(directory::space("/".as_ref()).await.unwrap(), space);
    });
}

#[test]
fn a_sector_under_write_is_damaged_on_request() {
    for (cut, seed) in [PowerCut::Garbage, PowerCut::Unreadable].into_iter().zip(0..) {
        let scene = Scene::new(seed);
        scene.run(async { drop(durable_file(4).await) });
        scene.simulation.power_cut_after(scene.node, 2, cut);
        let ended = scene.simulation.run_on(scene.node, SHARD, async {
            let file = open(OpenMode::Write).await;
            let _ = write(&file, 0, 2, 4, Durability::Durable).await;
            std::future::pending::<()>().await;
        });
        assert_eq!((ended, scene.simulation.counters().sectors_damaged), (Ok(None), 1));
        let odd = |content: Vec<u8>| content.iter().filter(|&&byte| byte != 1 && byte != 2).count();
        match cut {
            PowerCut::Garbage => assert!((400..=512).contains(&odd(scene.content().unwrap()))),
            _ => assert_eq!(scene.content().unwrap_err().raw_os_error(), Some(5)),
        }
        scene.simulation.restart(scene.node);
        scene.run(async {
            let file = open(OpenMode::Write).await;
            write(&file, 0, 3, 4, Durability::Durable).await.unwrap();
        });
        assert_eq!(scene.content().unwrap(), vec![3; 4 * BLOCK]);
    }
}

#[test]
#[should_panic(expected = "two different writes are in flight")]
fn overlapping_writes_in_flight_are_a_bug() {
    Scene::new(1).run(async {
        let file = open(OpenMode::Create).await;
        let (one, two) = (file.clone(), file.clone());
        let first = crate::runtime::spawn(crate::runtime::Class::Produce, async move {
            write(&one, 0, 1, 2, Durability::Written).await.unwrap();
        });
        write(&two, 4096, 2, 1, Durability::Written).await.unwrap();
        first.await;
    });
}

#[test]
fn names_follow_the_rules_of_the_system_calls() {
    Scene::new(1).run(async {
        use io::ErrorKind::*;
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        let (d, f) = (Path::new("/d"), Path::new("/d/f"));
        assert_eq!(File::open(f, OpenMode::Create).await.err().unwrap().kind(), NotFound);
        directory::create(d).await.unwrap();
        assert_eq!(kind(directory::create(d).await), AlreadyExists);
        let file = File::open(f, OpenMode::Create).await.unwrap();
        assert_eq!(File::open(f, OpenMode::Create).await.err().unwrap().kind(), AlreadyExists);
        assert_eq!(File::open(d, OpenMode::Read).await.err().unwrap().kind(), IsADirectory);
        assert_eq!(kind(directory::create(&f.join("x")).await), NotADirectory);
        assert_eq!(kind(directory::remove(d).await), DirectoryNotEmpty);
        assert_eq!(kind(directory::remove_file(d).await), IsADirectory);
        assert_eq!(kind(directory::rename(f, d).await), IsADirectory);
        assert_eq!(kind(directory::rename(Path::new("/none"), d).await), NotFound);
        directory::rename(d, Path::new("/e")).await.unwrap();
        write(&file, 0, 1, 1, Durability::Written).await.unwrap();
        assert_eq!(directory::read(Path::new("/e/f"), 5000).await.unwrap(), vec![1; BLOCK]);
        assert_eq!(directory::read(Path::new("/e/f"), 100).await.unwrap_err().kind(), FileTooLarge);
        let only_read = File::open(Path::new("/e/f"), OpenMode::Read).await.unwrap();
        assert_eq!(kind(write(&only_read, 0, 1, 1, Durability::Written).await), PermissionDenied);
        assert!(read(&only_read, 8192, 4096).await.unwrap().is_empty());
        directory::remove_file(Path::new("/e/f")).await.unwrap();
        assert_eq!(read(&file, 0, BLOCK).await.unwrap(), vec![1; BLOCK]);
        directory::remove(Path::new("/e")).await.unwrap();
        assert!(directory::list(Path::new("/")).await.unwrap().is_empty());
    });
}
