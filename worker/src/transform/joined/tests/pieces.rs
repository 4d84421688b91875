//! Given a slice that is larger than the memory, when it is joined, then it ends in memory, and is answered piece by
//! piece.

use std::sync::Arc;

use super::{AMPLE, Effort, Given, InputRows, JoinInput, Row, SECOND, plan, run, shown, window};

const ROWS: i64 = 1_500;
const BYTES: usize = 48 << 10;

/// Rows of one key alone, and of some others, all within the slice.
fn rows(of: i64) -> Vec<Row> {
    let key = |n: i64| if n % 10 == 0 { n % 7 } else { 1 };
    let row = |n: i64| Row { k: Some(key(n + of)), v: n, s: Some("some text"), nanos: (n % 60) * 1_000_000_000 };
    (0..ROWS).map(row).collect()
}

fn given(inputs: &[JoinInput]) -> Vec<Arc<dyn InputRows>> {
    let rows_of = |input: &JoinInput| rows(i64::from(input.source() != "a"));
    inputs.iter().map(|input| Arc::new(Given::new(input, &rows_of(input), 400)) as _).collect()
}

#[tokio::test]
async fn a_hot_key_that_does_not_fit_is_joined_piece_by_piece() {
    let near = "y.ts BETWEEN x.ts - INTERVAL '1' SECOND AND x.ts";
    let tight = Effort::InPieces { bytes: BYTES };
    for sql in [
        format!("SELECT x.v, x.s, y.v AS w, y.s AS t FROM a x JOIN b y ON x.k = y.k AND {near}"),
        format!("SELECT x.v, x.s, y.v AS w, y.s AS t FROM a x LEFT JOIN b y ON x.k = y.k AND x.v = y.v + 1 AND {near}"),
        format!(
            "SELECT x.v, x.s, y.v AS w, y.s AS t FROM a x RIGHT JOIN b y ON x.k = y.k AND x.v = y.v + 1 AND {near}"
        ),
        format!(
            "SELECT x.v, x.s FROM a x WHERE EXISTS (SELECT 1 FROM b y WHERE x.k = y.k AND y.s <> '' AND x.v = y.v AND {near})"
        ),
        format!(
            "SELECT x.v, x.s FROM a x WHERE NOT EXISTS (SELECT 1 FROM b y WHERE x.k = y.k AND y.s <> '' AND x.v = y.v AND {near})"
        ),
        format!(
            "SELECT x.v, x.s, y.s AS t, z.v AS w FROM a x JOIN b y ON x.k = y.k AND {near} \
                 JOIN c z ON y.k = z.k AND z.v = y.v AND z.ts = y.ts"
        ),
    ] {
        let query = plan(&sql).unwrap();
        let slice = window(0, 60 * SECOND);
        let inputs = || given(query.join().unwrap().inputs());
        let whole = run(&query, slice, inputs(), AMPLE).await.unwrap();
        let in_memory = run(&query, slice, inputs(), Effort::InMemory { bytes: BYTES }).await;
        match in_memory {
            Ok(_) => panic!("it is meant to be too large: {sql}"),
            Err(error) => assert!(error.is_memory(), "{sql}: {error:?}"),
        }
        let pieces = run(&query, slice, inputs(), tight).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert!(shown(&pieces) == shown(&whole) && !shown(&whole).is_empty(), "{sql}");
    }
}

#[tokio::test]
async fn what_no_piece_can_help_says_that_it_is_the_memory() {
    let query = plan("SELECT a.v, b.v AS w FROM a JOIN b ON a.k = b.k AND a.ts = b.ts").unwrap();
    for effort in [Effort::InMemory { bytes: 16 }, Effort::InPieces { bytes: 16 }] {
        let error =
            run(&query, window(0, 60 * SECOND), given(query.join().unwrap().inputs()), effort).await.unwrap_err();
        assert!(error.is_memory(), "{error:?}");
        assert_eq!(error.to_string(), "output out: its answer for a slice does not fit 16 bytes");
    }
}
