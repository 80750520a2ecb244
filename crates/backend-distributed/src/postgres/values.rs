//! Values on their way into columns and out.

use std::borrow::Cow;

use common::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};
use time::OffsetDateTime;

/// Milliseconds from 1970 to 2000, where PostgreSQL counts from.
const EPOCH: i64 = 946_684_800_000;
/// The years 1 to 9999: what PostgreSQL, its clients and RFC 3339 all have.
const FIRST: i64 = -62_135_596_800_000;
const LAST: i64 = 253_402_300_799_999;

/// A moment as a `timestamptz`. Others' timestamps may lie anywhere; those outside the years 1 to 9999 become the first
/// or the last moment of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(i64);

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        Self((at.as_millis().clamp(FIRST, LAST) - EPOCH) * 1000)
    }
}

impl From<Moment> for Timestamp {
    fn from(Moment(micros): Moment) -> Self {
        Self::from_millis(micros.div_euclid(1000).saturating_add(EPOCH))
    }
}

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Moment {
    fn array_type_info() -> PgTypeInfo {
        <OffsetDateTime as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Moment {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<'_, Postgres>>::encode_by_ref(&self.0, buffer)
    }
}

/// Unlike `time`, which panics at a year that it does not have.
impl Decode<'_, Postgres> for Moment {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        <i64 as Decode<'_, Postgres>>::decode(value).map(Self)
    }
}

/// Text as both backends store it: PostgreSQL refuses U+0000, so it is U+FFFD everywhere.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// [`storable`], where there may be none.
pub(super) fn optional(text: Option<&String>) -> Option<Cow<'_, str>> {
    text.map(|text| storable(text))
}

/// One column of some rows, to be bound as an array.
pub(super) fn column<'a, R, T>(rows: &'a [R], value: impl FnMut(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// A count or a size as the signed number that columns hold.
pub(super) fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_milliseconds_and_stay_in_range() {
        for millis in [0, -1, 1_795_000_000_123, FIRST, LAST] {
            assert_eq!(Timestamp::from(Moment::from(Timestamp::from_millis(millis))).as_millis(), millis);
        }
        for (hostile, clamped) in [(i64::MAX, LAST), (i64::MIN, FIRST), (LAST + 1, LAST), (FIRST - 1, FIRST)] {
            assert_eq!(Timestamp::from(Moment::from(Timestamp::from_millis(hostile))).as_millis(), clamped);
        }
        assert_eq!(Timestamp::from(Moment(i64::MAX)).as_millis(), i64::MAX / 1000 + EPOCH);
    }

    #[test]
    fn only_the_nul_is_replaced() {
        assert_eq!(storable("a\0b\u{1f680}"), "a\u{fffd}b\u{1f680}");
    }
}
