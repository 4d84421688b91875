//! The grid, held against every microsecond of small windows; widths and buckets, by case and by property.

use proptest::prelude::*;

use super::*;

fn at(micros: i64) -> EventTime {
    EventTime::from_micros(micros)
}

proptest! {
    /// Held against every single microsecond of a small window.
    #[test]
    fn the_grid_is_what_its_points_say(
        from in -40..40i64, length in 1..60i64, width in 1..30i64, low in -30..30i64, more in 0..30i64,
        complete in -100..200i64, (first, cells) in (-8..12i64, 0..6i64),
    ) {
        let window = Window::new(at(from), at(from + length)).unwrap();
        let slices = Slices::new(window, Span::from_micros(width)).unwrap();
        let reach = Reach { low: Span::from_micros(low), high: Span::from_micros(low + more) };
        let slice_of = |t: i64| (0..slices.count()).find(|ix| slices.slice(*ix).unwrap().contains(at(t)));
        let anchors: Vec<(i64, u32)> = (from..from + length).map(|t| (t, slice_of(t).unwrap())).collect();
        prop_assert_eq!(anchors.first().unwrap().1, 0);
        prop_assert_eq!(anchors.last().unwrap().1 + 1, slices.count());
        for (t, slice) in &anchors {
            prop_assert_eq!(slices.cell_of(at(*t)), i64::from(*slice));
        }
        for ix in 0..slices.count() {
            let met: Vec<i64> =
                anchors.iter().filter(|(_, of)| *of == ix).flat_map(|(t, _)| t + low..=t + low + more).collect();
            let all: Vec<i64> = met.iter().map(|t| slices.cell_of(at(*t))).collect();
            let range = slices.cells(ix..ix + 1, reach).unwrap();
            prop_assert_eq!((range.start(), range.end()), (all.iter().min().unwrap(), all.iter().max().unwrap()));
            let cell_ends = |t: &i64| (*t..).find(|u| slices.cell_of(at(*u + 1)) != slices.cell_of(at(*t))).unwrap();
            let whole = met.iter().all(|t| cell_ends(t) < complete);
            prop_assert_eq!(ix < slices.ready(at(complete), reach), whole, "slice {}", ix);
        }
        let last = first + cells;
        let needing: Vec<u32> = (0..slices.count())
            .filter(|ix| {
                let range = slices.cells(*ix..*ix + 1, reach).unwrap();
                *range.start() <= last && first <= *range.end()
            })
            .collect();
        prop_assert_eq!(slices.needing(first..=last, reach).collect::<Vec<_>>(), needing);
    }
}

#[test]
fn a_cell_behind_what_the_last_slice_meets_is_needed_by_none_though_that_slice_is_narrower_than_its_cell() {
    let window = Window::new(at(0), at(10_000)).unwrap();
    let slices = Slices::new(window, Span::from_micros(439)).unwrap();
    let reach = Reach { low: Span::ZERO, high: Span::from_micros(536) };
    assert_eq!(slices.cells(22..23, reach).unwrap(), 22..=24);
    assert_eq!((slices.needing(24..=24, reach), slices.needing(25..=25, reach)), (22..23, 23..23));
}

#[test]
fn a_slice_that_meets_a_part_of_a_cell_is_ready_when_the_whole_cell_is_complete() {
    let window = Window::new(at(0), at(1_000)).unwrap();
    let slices = Slices::new(window, Span::from_micros(100)).unwrap();
    let reach = Reach { low: Span::ZERO, high: Span::from_micros(50) };
    assert_eq!((slices.ready(at(150), reach), slices.ready(at(199), reach), slices.ready(at(200), reach)), (0, 0, 1));
    assert_eq!(slices.needing(1..=1, reach), 0..2, "what comes below 200 is of the first slice's");
}

#[test]
fn what_is_no_grid_is_none() {
    let window = Window::new(at(0), at(1_000_000)).unwrap();
    assert_eq!(Slices::new(window, Span::ZERO), None);
    assert_eq!(Slices::new(window, Span::from_micros(1)), None, "a million slices");
    assert_eq!(Slices::new(window, Span::from_micros(10)).map(Slices::count), Some(100_000));
}

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
const MIB: u64 = 1 << 20;

fn cutting(length: i64, max_drift: Option<i64>, bytes: u64, reach: i64) -> Cutting {
    Cutting {
        window: Window::new(at(0), at(length)).unwrap(),
        max_drift: max_drift.map(Span::from_micros),
        bytes,
        reach: Span::from_micros(reach),
        keyed: true,
        slice: None,
        buckets: None,
        whole: None,
    }
}

fn chosen(cutting: Cutting) -> (i64, u32, u32) {
    let cut = cutting.choose();
    (cut.slice.as_micros(), Slices::new(cutting.window, cut.slice).unwrap().count(), cut.buckets)
}

#[test]
fn a_slice_holds_enough_and_is_no_wider_than_sources_drift_or_reach() {
    let cases = [
        ("little data: as wide as the drift", cutting(365 * DAY, Some(10 * DAY), 8 * MIB, 0), (7 * DAY, 53, 1)),
        ("the drift is a width that one can think in", cutting(30 * DAY, Some(DAY), 8 * MIB, 0), (DAY, 30, 1)),
        ("no drift: a 16th of the window", cutting(365 * DAY, None, 8 * MIB, 0), (7 * DAY, 53, 1)),
        ("much data: 64 MiB each", cutting(DAY, Some(DAY), 24 * 64 * MIB, 0), (HOUR, 24, 4)),
        ("too much data: no more than 4,096", cutting(365 * DAY, Some(DAY), 1 << 50, 0), (3 * HOUR, 2_920, 64)),
        ("a long reach: a quarter of it", cutting(30 * DAY, Some(HOUR), 1 << 40, 4 * DAY), (DAY, 30, 64)),
        ("wider where no such width is near", cutting(7 * DAY, Some(HOUR / 2), 1 << 37, 5 * HOUR), (3 * HOUR, 56, 64)),
        ("nor anywhere between", cutting(30 * DAY, Some(HOUR), 1 << 40, 5 * DAY), (30 * HOUR, 24, 64)),
        ("a reach beyond the window: all of it", cutting(HOUR, Some(HOUR), MIB, 9 * HOUR), (HOUR, 1, 1)),
        ("next to no window", cutting(10, None, 0, 0), (1, 10, 1)),
    ];
    for (what, cutting, wanted) in cases {
        assert_eq!(chosen(cutting), wanted, "{what}");
    }
}

#[test]
fn what_the_spec_says_goes_and_what_has_no_key_has_one_bucket() {
    let found = cutting(DAY, Some(HOUR), 100 * MIB, 0);
    let said = Cutting { slice: Some(Span::from_micros(7 * SECOND)), buckets: Some(100), ..found };
    assert_eq!(chosen(said), (7 * SECOND, 12_343, 100));
    assert_eq!(chosen(Cutting { keyed: false, ..said }).2, 1);
    assert_eq!(chosen(Cutting { slice: Some(Span::from_micros(1)), ..found }).0, DAY, "86 thousand million slices");
    assert_eq!(chosen(Cutting { buckets: Some(0), ..found }).2, 1);
}

#[test]
fn a_slice_is_made_of_whole_windows() {
    let hours = |hours| WholeWindows::new(Span::from_micros(hours * HOUR), at(0));
    let found = Cutting { whole: hours(1), ..cutting(30 * DAY, Some(DAY), 1 << 50, 0) };
    let plain = Cutting { whole: None, ..found };
    assert_eq!((chosen(plain).0, chosen(found).0), (900 * SECOND, HOUR), "too narrow without");
    assert_eq!(chosen(Cutting { whole: hours(5), ..cutting(30 * DAY, Some(DAY), MIB, 0) }).0, 25 * HOUR);
    let wide = Cutting { whole: hours(24), ..cutting(30 * DAY, Some(HOUR), MIB, 0) };
    assert_eq!(chosen(wide).0, DAY, "wider than the drift, for want of a narrower one");
    let said = Cutting { slice: Some(Span::from_micros(HOUR + 1)), ..found };
    assert_eq!(chosen(said).0, 2 * HOUR);
    let too_fine = Cutting { slice: Some(Span::from_micros(1)), whole: hours(0), ..found };
    assert_eq!(chosen(too_fine).0, 30 * DAY);
}

proptest! {
    #[test]
    fn whatever_was_found_a_slice_is_made_of_whole_windows_and_no_wider_than_the_window(
        (width, windows) in (prop_oneof![1..1_000i64, SECOND..DAY], 1..5_000i64),
        drift in proptest::option::of(1..30 * DAY),
        bytes in any::<u64>(),
        reach in 0..60 * DAY,
        slice in proptest::option::of(1..2 * DAY),
    ) {
        let whole = WholeWindows::new(Span::from_micros(width), at(0));
        let slice = slice.map(Span::from_micros);
        let cutting = Cutting { whole, slice, ..cutting(width * windows, drift, bytes, reach) };
        let cut = cutting.choose().slice.as_micros();
        prop_assert_eq!(cut % width, 0);
        prop_assert!(slice.is_some() || cut <= width * windows, "{cut} is wider than the window");
    }

    #[test]
    fn a_width_is_within_its_bounds_whatever_was_found(
        length in prop_oneof![1..10_000i64, SECOND..DAY, DAY..4_000 * DAY],
        drift in proptest::option::of(prop_oneof![1..SECOND, SECOND..30 * DAY]),
        bytes in prop_oneof![0..200 * MIB, any::<u64>()],
        reach in prop_oneof![Just(0), 1..SECOND, SECOND..60 * DAY],
    ) {
        let (width, slices, buckets) = chosen(cutting(length, drift, bytes, reach));
        prop_assert!(i64::from(slices) <= MOST_SLICES, "{slices} slices");
        prop_assert!(width == length || width * 4 >= reach, "{width} is less than a quarter of {reach}");
        let widest = drift.unwrap_or(length / LEAST_SLICES).max(reach);
        let finest = length / MOST_SLICES + 1;
        prop_assert!(width <= widest.max(finest) && width <= length, "{width} is wider than {widest}");
        prop_assert!((1..=64).contains(&buckets));
        // One that people can think in, wherever one is allowed.
        let allowed = |width: i64| width <= widest && width <= length && width * MOST_SLICES >= length && width * 4 >= reach;
        let nice = |width: i64| WIDTHS.iter().any(|seconds| seconds * SECOND == width);
        prop_assert!(nice(width) || !WIDTHS.iter().any(|seconds| allowed(seconds * SECOND)), "{width}");
    }

    #[test]
    fn more_data_makes_no_wider_slices(bytes in any::<u64>(), more in any::<u64>(), reach in 0..DAY) {
        let width = |bytes| chosen(cutting(365 * DAY, Some(10 * DAY), bytes, reach)).0;
        prop_assert!(width(bytes.saturating_add(more)) <= width(bytes));
    }
}
