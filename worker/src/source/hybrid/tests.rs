//! Both sides in memory: whatever lies where, what is read is every record that either still holds, once.

mod sparse;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Schema};
use futures::StreamExt;
use futures::stream::BoxStream;
use proptest::prelude::*;
use tidegate_common::time::{Bounds, EventTime};

use super::*;
use crate::source::asked::{Asked, AskedRange, Edge};
use crate::source::bounds::KnownBounds;
use crate::source::{SourceBatch, UnitSpans, check};

/// Partition and offset.
type Place = (i32, i64);

/// Microseconds of event time between two offsets.
const STEP: i64 = 10;

fn time(place: &Place) -> i64 {
    place.1 * STEP
}

/// A source of units of records; as an archive has them, or as a topic does.
struct Side {
    /// By split, by unit.
    records: Vec<Vec<Vec<Place>>>,
    /// Of a topic, what each split's one unit covers.
    ranges: Option<Vec<v1::KafkaRange>>,
    /// Files of which rows were deleted: how many are left only reading tells.
    deleted: BTreeSet<usize>,
    /// Of an archive, what its column of topics says.
    named: Option<&'static str>,
    /// The offsets whose records have no event time.
    timeless: BTreeSet<i64>,
}

impl Side {
    fn rows(&self, split: usize, unit: usize) -> u64 {
        match &self.ranges {
            Some(ranges) => u64::try_from(ranges[split].end - ranges[split].start).unwrap(),
            None => self.records[split][unit].len() as u64,
        }
    }
}

fn known_type() -> DataType {
    let field = |name: &str, kind| Field::new(name, kind, true);
    let fields =
        vec![field("topic", DataType::Utf8), field("partition", DataType::Int32), field("offset", DataType::Int64)];
    DataType::Struct(fields.into())
}

fn columns(side: &Side, places: &[Place]) -> Vec<(&'static str, ArrayRef)> {
    let offsets: ArrayRef = Arc::new(places.iter().map(|place| place.1).collect::<Int64Array>());
    let values: ArrayRef =
        Arc::new(places.iter().map(|place| place.1 * 7 + i64::from(place.0)).collect::<Int64Array>());
    let partitions = places.iter().map(|place| place.0).collect::<Int32Array>();
    if side.ranges.is_none() {
        let own: Vec<(&str, ArrayRef)> =
            vec![("value", values), ("_kafka_offset", offsets), ("_kafka_partition", Arc::new(partitions))];
        let named = side.named.map(|topic| Arc::new(StringArray::from(vec![topic; places.len()])) as ArrayRef);
        return own.into_iter().chain(named.map(|topics| ("_kafka_topic", topics))).collect();
    }
    let DataType::Struct(fields) = known_type() else { panic!("it is one") };
    let topics: ArrayRef = Arc::new(StringArray::from(vec!["t"; places.len()]));
    let known = StructArray::new(fields, vec![topics, Arc::new(partitions), offsets], None);
    vec![("value", values), ("_kafka", Arc::new(known))]
}

#[async_trait]
impl Source for Arc<Side> {
    fn schema(&self) -> SchemaRef {
        let columns = columns(self, &[]);
        let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn pin(&self) -> Option<v1::SourcePin> {
        let ranges = self.ranges.clone()?;
        Some(v1::SourcePin { kafka: Some(v1::KafkaPin { ranges, ..Default::default() }), ..Default::default() })
    }

    async fn spans(&self, split: &v1::Split, asked: &[usize]) -> Result<Vec<UnitSpans>, SourceError> {
        let split = usize::from(split.detail[0]);
        if self.deleted.contains(&split) {
            return Ok(Vec::new());
        }
        let of_unit = |(position, places): (u64, &Vec<Place>)| {
            let bound = |column: &usize| {
                let of = |place: &Place| if *column == 1 { place.1 } else { i64::from(place.0) };
                Some((places.iter().map(of).min()?, places.iter().map(of).max()?))
            };
            UnitSpans { position, bounds: asked.iter().map(bound).collect() }
        };
        Ok((0..).zip(&self.records[split]).map(of_unit).collect())
    }

    async fn enumerate(&self, window: Window, found: mpsc::Sender<FoundSplit>) -> Result<(), SourceError> {
        for (split, units) in self.records.iter().enumerate() {
            let file = v1::FilePin { path: split.to_string(), ..Default::default() };
            let detail = vec![u8::try_from(split).unwrap()].into();
            let split_of = v1::Split { file: Some(file), detail };
            let mut made = FoundSplit { split: split_of, ..FoundSplit::default() };
            for (position, places) in (0..).zip(units) {
                let rows = self.rows(split, usize::try_from(position).unwrap());
                let at = |micros: Option<i64>| EventTime::from_micros(micros.unwrap_or(0));
                let bounds = Bounds::new(at(places.iter().map(time).min()), at(places.iter().map(time).max()));
                let known = KnownBounds { bounds, has_nulls: self.ranges.is_some() };
                match known.within(window, None).filter(|_| rows > 0) {
                    Some(within) => made.units.push(v1::UnitOfWork {
                        position,
                        rows: if self.deleted.contains(&split) { 0 } else { rows },
                        low: within.low().as_micros(),
                        high: within.high().as_micros(),
                        ..Default::default()
                    }),
                    None => made.rows_pruned += rows,
                }
            }
            found.send(made).await.map_err(|_| SourceError::Abandoned)?;
        }
        Ok(())
    }

    async fn reader(
        &self,
        splits: &[v1::Split],
        columns: &[usize],
        window: Window,
    ) -> Result<Box<dyn UnitReader>, SourceError> {
        Ok(Box::new(SideReader { side: self.clone(), splits: splits.to_vec(), columns: columns.to_vec(), window }))
    }
}

struct SideReader {
    side: Arc<Side>,
    splits: Vec<v1::Split>,
    columns: Vec<usize>,
    window: Window,
}

#[async_trait]
impl UnitReader for SideReader {
    async fn read(
        &mut self,
        unit: &v1::UnitOfWork,
    ) -> Result<BoxStream<'static, Result<SourceBatch, SourceError>>, SourceError> {
        let split = usize::from(self.splits[usize::try_from(unit.split).unwrap()].detail[0]);
        let at = usize::try_from(unit.position).unwrap();
        let places = &self.side.records[split][at];
        let batch = |places: &[Place]| {
            let all = RecordBatch::try_from_iter(columns(&self.side, places)).unwrap();
            let is_timed = |place: &Place| !self.side.timeless.contains(&place.1);
            let times = places.iter().map(|place| is_timed(place).then(|| time(place))).collect::<Int64Array>();
            Ok(SourceBatch::of(all.project(&self.columns).unwrap(), times, Vec::new()))
        };
        let mut batches: Vec<Result<SourceBatch, SourceError>> = places.chunks(3).map(batch).collect();
        if self.side.ranges.is_some() {
            let none: Result<SourceBatch, SourceError> = batch(&[]);
            let gaps = self.side.rows(split, at) - places.len() as u64;
            batches.push(none.map(|none| SourceBatch { gaps, ..none }));
        }
        let checks = check::Unit::new("memory", "unit", unit, self.window, "none");
        Ok(checks.over(futures::stream::iter(batches).boxed()))
    }
}

/// A topic of two partitions, of which so much is gone, and its archive.
#[derive(Clone, Debug)]
struct World {
    /// Of each partition and offset, whether there ever was a record, and the units of the archive that hold it.
    records: [Vec<(bool, Vec<u8>)>; 2],
    log_starts: [i64; 2],
    deleted: BTreeSet<usize>,
    window: Window,
}

/// Units of the archive, two a file.
const UNITS: usize = 6;
const OFFSETS: usize = 20;

fn world() -> impl Strategy<Value = World> {
    // Mostly in one unit, by where the offset is; now and then in another one, in none or in two.
    let place = (0u8..40, 0u8..6, any::<bool>());
    let partition = || prop::collection::vec((0u8..10, place.clone()), OFFSETS);
    let records = (partition(), partition()).prop_map(|(one, other)| {
        [one, other].map(|records| {
            let of = |(at, (exists, (chance, unit, half))): (usize, (u8, (u8, u8, bool)))| {
                let own = u8::try_from(at / 5).unwrap() + u8::from(half);
                let units = match chance {
                    0 => vec![],
                    1 => vec![unit],
                    2 => vec![own, unit],
                    _ => vec![own],
                };
                (exists > 0, if exists > 0 { units } else { Vec::new() })
            };
            records.into_iter().enumerate().map(of).collect::<Vec<_>>()
        })
    });
    let window = (0i64..20, 0i64..30).prop_map(|(from, length)| {
        let at = |offset: i64| EventTime::from_micros(offset * STEP);
        Window::new(at(from), at(from + length)).unwrap_or(Window::ALL)
    });
    let starts = (0i64..20, 0i64..20, prop::collection::btree_set(0usize..3, 0..2), window, 0usize..25);
    (records, starts).prop_map(|(mut records, (one, other, deleted, window, archived))| {
        // The archive ends somewhere.
        for records in &mut records {
            records.iter_mut().skip(archived).for_each(|(_, units)| units.clear());
        }
        World { records, log_starts: [one, other], deleted, window }
    })
}

impl World {
    fn all(&self) -> impl Iterator<Item = (Place, &(bool, Vec<u8>))> {
        (0..).zip(&self.records).flat_map(|(partition, records)| {
            (0..).zip(records).map(move |(offset, record)| ((partition, offset), record))
        })
    }

    fn archive(&self) -> Side {
        let mut units = vec![Vec::new(); UNITS];
        for (place, (_, held)) in self.all() {
            held.iter().for_each(|unit| units[usize::from(*unit) % UNITS].push(place));
        }
        let records = units.chunks(2).map(<[Vec<Place>]>::to_vec).collect();
        Side { records, ranges: None, deleted: self.deleted.clone(), named: None, timeless: BTreeSet::new() }
    }

    fn asked(&self) -> Asked {
        let range = |(partition, start): (i32, &i64)| AskedRange {
            partition,
            log_start: *start,
            log_end: OFFSETS as i64,
            written: OFFSETS as i64,
            start: Edge::Earliest,
            stop: Edge::Offset(OFFSETS as i64),
        };
        Asked { partitions: 2, ranges: (0..).zip(&self.log_starts).map(range).collect(), ..Asked::default() }
    }

    fn topic(&self, ranges: Vec<v1::KafkaRange>) -> Side {
        let of = |range: &v1::KafkaRange| {
            let inside = |place: &Place| place.0 == range.partition && (range.start..range.end).contains(&place.1);
            vec![self.all().filter(|(place, (exists, _))| *exists && inside(place)).map(|(place, _)| place).collect()]
        };
        Side {
            records: ranges.iter().map(of).collect(),
            ranges: Some(ranges),
            deleted: BTreeSet::new(),
            named: None,
            timeless: BTreeSet::new(),
        }
    }

    fn open_archive(&self) -> Archive {
        Self::opened(self.archive())
    }

    fn opened(archive: Side) -> Archive {
        let source = Arc::new(Arc::new(archive));
        let spec = serde_json::from_value(serde_json::json!({"iceberg": {"table": "ns.a"}})).unwrap();
        let columns = Columns::of("s", &spec, &source.schema()).unwrap();
        Archive::new("s", "t", "ns.a", source, columns)
    }
}

/// What reading gives: each place as often as it came, and the counts of the ledger.
#[derive(Debug, Default)]
struct Got {
    places: BTreeMap<Place, u32>,
    in_range: u64,
    read: u64,
    pruned: u64,
    gaps: u64,
}

async fn read(source: &HybridSource, window: Window) -> Result<Got, SourceError> {
    let (sender, mut receiver) = mpsc::channel(64);
    source.enumerate(window, sender).await?;
    let mut got = Got::default();
    while let Some(found) = receiver.recv().await {
        got.pruned += found.rows_pruned;
        got.in_range += found.rows_pruned;
        let mut reader = source.reader(std::slice::from_ref(&found.split), &[0, 1], window).await?;
        for unit in &found.units {
            got.in_range += unit.rows;
            let mut batches = reader.read(unit).await?;
            let before = got.read + got.gaps;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                got.gaps += batch.gaps;
                got.read += batch.rows.num_rows() as u64;
                let known = batch.rows.column(1).as_any().downcast_ref::<StructArray>().unwrap();
                let partitions = columns::integers(known.column_by_name("partition").unwrap()).unwrap();
                let offsets = columns::integers(known.column_by_name("offset").unwrap()).unwrap();
                let values = columns::integers(batch.rows.column(0)).unwrap();
                for row in 0..batch.rows.num_rows() {
                    let place = (i32::try_from(partitions.value(row)).unwrap(), offsets.value(row));
                    assert_eq!(
                        (values.value(row), batch.event_time.value(row)),
                        (place.1 * 7 + i64::from(place.0), time(&place))
                    );
                    *got.places.entry(place).or_default() += 1;
                }
            }
            assert_eq!(got.read + got.gaps - before, unit.rows, "{unit:?}");
        }
    }
    Ok(got)
}

/// Decides, opens and reads; then opens at the pin, as another worker does, and reads again.
async fn both(world: &World) -> Result<(Got, Got, Vec<Cut>), SourceError> {
    let archive = world.open_archive();
    let decided = archive.decide(&world.asked(), None).await?;
    let cuts = decided.cuts.clone();
    let live = || {
        Arc::new(Arc::new(world.topic(
            cuts.iter().map(|cut| v1::KafkaRange { partition: cut.partition, start: cut.cut, end: cut.end }).collect(),
        )))
    };
    let source = HybridSource::open("s", archive, live(), decided)?;
    let kafka = source.shared.live.pin().and_then(|pin| pin.kafka);
    let range = |cut: &Cut| v1::KafkaRange { partition: cut.partition, start: cut.start, end: cut.cut };
    let pin = v1::SourcePin { kafka, archive: cuts.iter().map(range).collect(), ..Default::default() };
    let again = HybridSource::open("s", world.open_archive(), live(), Decided::pinned(&pin))?;
    Ok((read(&source, world.window).await?, read(&again, world.window).await?, cuts))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn every_record_that_either_holds_is_read_once_or_the_source_is_refused(world in world()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let is_kept = |place: &Place| place.1 >= world.log_starts[usize::try_from(place.0).unwrap()];
        match runtime.block_on(both(&world)) {
            Ok((got, again, cuts)) => {
                let wanted: BTreeSet<Place> = world
                    .all()
                    .filter(|(place, (exists, held))| *exists && (is_kept(place) || !held.is_empty()))
                    .map(|(place, _)| place)
                    .collect();
                let in_window = |place: &&Place| world.window.contains(EventTime::from_micros(time(place)));
                let expected: BTreeMap<Place, u32> = wanted.iter().filter(in_window).map(|place| (*place, 1)).collect();
                let offsets: i64 = cuts.iter().map(|cut| cut.end - cut.start).sum();
                for got in [got, again] {
                    let found: BTreeMap<Place, u32> =
                        got.places.iter().filter(|(place, _)| in_window(place)).map(|(place, many)| (*place, *many)).collect();
                    prop_assert_eq!(&found, &expected);
                    prop_assert_eq!(got.in_range, u64::try_from(offsets).unwrap());
                    prop_assert_eq!(got.in_range, got.read + got.pruned + got.gaps);
                }
            }
            Err(refused) => {
                let said = refused.to_string();
                let is_twice = world.all().any(|(place, (_, held))| held.len() > 1 && !is_kept(&place));
                // It holds something below the log's start, and nothing on either side of it.
                let ends_early = (0..2).any(|partition| {
                    let held = world.all().filter(move |(place, (_, held))| place.0 == partition && !held.is_empty());
                    let held: Vec<i64> = held.map(|(place, _)| place.1).collect();
                    let start = world.log_starts[partition as usize];
                    held.iter().any(|at| *at < start) && !held.iter().any(|at| (start - 1..=start).contains(at))
                });
                let is_right = (said.contains("more than once") && is_twice) || (said.contains("in neither") && ends_early);
                prop_assert!(is_right, "{said} of {world:?}");
            }
        }
    }
}
