//! Whether an output that joins or aggregates can be cut into slices, and what to write where it cannot; and over which
//! window its sources are read.

use tidegate_common::slices::{Reach, Slices};
use tidegate_common::spec::canonical_span;
use tidegate_common::time::{Span, Window};
use tidegate_common::windows::WholeWindows;

/// Why `window` cannot be cut into slices as wide as `slice` says, for a query that groups by the windows `whole`.
pub(super) fn uncut(window: Window, slice: Option<Span>, whole: Option<WholeWindows>) -> Option<String> {
    if window == Window::ALL {
        return Some("it needs a window: say which `window` is replayed".to_owned());
    }
    if let Some(whole) = whole.filter(|whole| !whole.make_up(window)) {
        let width = canonical_span(whole.width());
        let way_out = match whole.around(window) {
            Some(around) => format!("make it `from: {}` and `to: {}`", around.from(), around.to()),
            None => "bring it nearer to the present".to_owned(),
        };
        return Some(format!(
            "it groups by windows of {width}, and the backfill's `window` cuts through one of them: {way_out}"
        ));
    }
    let slice = slice?;
    let odd = whole.map(|whole| (whole.width(), whole.round_up(slice))).filter(|(_, rounded)| *rounded != slice);
    if let Some((width, rounded)) = odd {
        let (slice, width, rounded) = (canonical_span(slice), canonical_span(width), canonical_span(rounded));
        return Some(format!(
            "slices of {slice} cut through the windows of {width} that it groups by: make `join.slice` {rounded}, or \
             another multiple of {width}"
        ));
    }
    Slices::new(window, slice).is_none().then(|| {
        let most = Slices::MOST;
        format!("slices of {} are more than {most} in its window: make `join.slice` wider", canonical_span(slice))
    })
}

/// The window over which a source of a query that joins is read, which is met as far as `reach` says from anchors in `window`;
/// an anchor is not warmed up unless it meets other rows of itself.
pub(crate) fn read_window(window: Window, warm_up: Span, (is_anchor, reach): (bool, Reach)) -> Option<Window> {
    let warm_up = if is_anchor && reach == Reach::NONE { Span::ZERO } else { warm_up };
    let low = Span::from_micros(reach.low.as_micros().saturating_sub(warm_up.as_micros()));
    Reach { low, ..reach }.around(window)
}

#[cfg(test)]
mod tests {
    use tidegate_common::time::EventTime;

    use super::*;

    const MINUTE: i64 = 60_000_000;
    const HOUR: i64 = 60 * MINUTE;

    fn window(from: i64, to: i64) -> Window {
        Window::new(EventTime::from_micros(from), EventTime::from_micros(to)).unwrap()
    }

    fn said(window: Window, slice: Option<i64>, whole: Option<(i64, i64)>) -> String {
        let whole = whole
            .and_then(|(width, origin)| WholeWindows::new(Span::from_micros(width), EventTime::from_micros(origin)));
        uncut(window, slice.map(Span::from_micros), whole).unwrap_or_default()
    }

    #[test]
    fn given_a_window_that_cuts_through_one_that_is_grouped_by_then_the_nearest_outside_is_named() {
        let day = window(0, 24 * HOUR);
        for whole in [None, Some((HOUR, 0)), Some((HOUR, 5 * HOUR)), Some((24 * HOUR, 0)), Some((90 * MINUTE, 0))] {
            assert_eq!(said(day, None, whole), "");
        }
        assert_eq!(
            said(day, None, Some((HOUR, 15 * MINUTE))),
            "it groups by windows of 1h, and the backfill's `window` cuts through one of them: make it `from: \
             1969-12-31T23:15:00Z` and `to: 1970-01-02T00:15:00Z`"
        );
        assert_eq!(
            said(window(1, 23 * HOUR), None, Some((HOUR, 0))),
            "it groups by windows of 1h, and the backfill's `window` cuts through one of them: make it `from: \
             1970-01-01T00:00:00Z` and `to: 1970-01-01T23:00:00Z`"
        );
        assert!(said(window(HOUR, 23 * HOUR + 1), None, Some((HOUR, 0))).contains("`to: 1970-01-02T00:00:00Z`"));
        let beyond = Window::new(EventTime::from_micros(i64::MIN + 1), EventTime::from_micros(0)).unwrap();
        assert!(said(beyond, None, Some((HOUR, 0))).ends_with("bring it nearer to the present"));
        assert!(said(Window::ALL, None, Some((HOUR, 0))).starts_with("it needs a window"));
    }

    #[test]
    fn given_a_slice_that_is_no_multiple_then_the_next_is_named() {
        let day = window(0, 24 * HOUR);
        assert_eq!(said(day, Some(3 * HOUR), Some((HOUR, 0))), "");
        assert_eq!(
            said(day, Some(90 * MINUTE + 1), Some((HOUR, 0))),
            "slices of 1h30m1us cut through the windows of 1h that it groups by: make `join.slice` 2h, or another \
             multiple of 1h"
        );
        assert!(said(day, Some(MINUTE), Some((HOUR, 0))).contains("make `join.slice` 1h,"));
        assert_eq!(
            said(day, Some(1), None),
            "slices of 1us are more than 100000 in its window: make `join.slice` wider"
        );
        assert_eq!(said(day, Some(1), Some((1, 0))), said(day, Some(1), None));
    }

    #[test]
    fn given_a_warm_up_then_all_but_the_anchors_own_rows_are_read_so_much_earlier() {
        let reach =
            |low: i64, high: i64| Reach { low: Span::from_micros(low * HOUR), high: Span::from_micros(high * HOUR) };
        let read = |warm_up: i64, input| read_window(window(0, 24 * HOUR), Span::from_micros(warm_up * HOUR), input);
        assert_eq!(read(9, (true, Reach::NONE)), Some(window(0, 24 * HOUR)));
        assert_eq!(read(9, (false, Reach::NONE)), Some(window(-9 * HOUR, 24 * HOUR)), "it is another source");
        assert_eq!(read(9, (false, reach(-4, 1))), Some(window(-13 * HOUR, 25 * HOUR)));
        assert_eq!(read(9, (true, reach(-1, 0))), Some(window(-10 * HOUR, 24 * HOUR)), "it is joined with itself");
        assert_eq!(read(0, (false, reach(-4, 1))), Some(window(-4 * HOUR, 25 * HOUR)));
    }
}
