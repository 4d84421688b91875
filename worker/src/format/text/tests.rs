#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arrow::array::types::Decimal128Type;
use arrow::compute::kernels::cast_utils::parse_decimal;
use proptest::prelude::*;

use super::*;

#[test]
fn days_and_times_of_every_year_are_those_of_the_calendar() {
    let mut day = jiff::civil::date(0, 1, 1);
    let epoch = jiff::civil::date(1970, 1, 1);
    for _ in 0..(10_000 * 366 / 7) {
        let days = i64::from((day - epoch).get_days());
        assert_eq!(date(day.to_string().as_bytes()), Some(days), "{day}");
        let Ok(next) = day.checked_add(jiff::Span::new().days(7)) else { return };
        day = next;
    }
}

proptest! {
    #[test]
    fn a_time_is_what_another_parser_says(text in "(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9][T t][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|z|[+-][01][0-9]:[0-5][0-9])") {
        let fast = usual_time(text.as_bytes());
        let by_arrow = string_to_datetime(&"+00:00".parse::<Tz>().unwrap(), &text).ok().map(|t| t.timestamp_micros());
        if fast.is_some() {
            prop_assert_eq!(fast, by_arrow);
        }
        prop_assert_eq!(time(&text), by_arrow);
    }

    #[test]
    fn a_decimal_is_exact_or_none(value in -99_999_999_999_i128..99_999_999_999, scale in 0_u32..8, zeros in 0_usize..5, exponent in -5_i64..6) {
        let unit = 10_i128.pow(scale);
        let sign = if value < 0 { "-" } else { "" };
        let (whole, part) = (value.abs() / unit, value.abs() % unit);
        let width = scale as usize;
        let text = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part:0width$}{}", "0".repeat(zeros)) };
        prop_assert_eq!(decimal(&text, scale as i32), Some(value));
        prop_assert_eq!(parse_decimal::<Decimal128Type>(&text, 38, scale as i8).ok(), Some(value));
        let moved = decimal(&format!("{text}e{exponent}"), scale as i32);
        let expected = if exponent >= 0 {
            Some(value * 10_i128.pow(exponent as u32))
        } else {
            let unit = 10_i128.pow(exponent.unsigned_abs() as u32);
            (value % unit == 0).then_some(value / unit)
        };
        prop_assert_eq!(moved, expected);
    }

    #[test]
    fn whole_numbers_come_back(value in any::<i64>()) {
        prop_assert_eq!(integer(&value.to_string()), Some(value));
        prop_assert_eq!(integer(&format!("{value}.000")), Some(value));
    }

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![any::<String>(), "[-+.eE0-9]{0,50}", "[0-9TZ:. +-]{0,40}"]) {
        for kind in ["boolean", "int", "bigint", "real", "double", "date", "timestamp", "decimal(38,10)"] {
            let spec = tidegate_common::spec::model::ColumnSpec { name: "a".to_owned(), r#type: kind.to_owned() };
            let schema = super::super::given::schema(&[spec]).unwrap();
            let mut column = Column::new(schema.field(0).data_type()).unwrap();
            let _ = push(&mut column, &text);
        }
    }
}
