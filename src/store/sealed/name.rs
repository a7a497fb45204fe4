//! What a sealed file is called, and what its name says of it.

/// What a file holds of its UTC day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// The whole day in long columns, written once: `day-YYYYMMDD.redb`.
    Day,
    /// The hours of the day as they were sealed, and what came late for a day that
    /// has been rewritten already: `l0-YYYYMMDD.redb`.
    Hours,
    /// What each 5 minutes of the day come to: `roll5m-YYYYMMDD.redb`.
    Roll5m,
    /// What each hour of the day comes to: `roll1h-YYYYMMDD.redb`.
    Roll1h,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Day, Kind::Hours, Kind::Roll5m, Kind::Roll1h];

    /// Those with the samples themselves, in the order in which a read merges them.
    pub const RAW: [Kind; 2] = [Kind::Day, Kind::Hours];

    /// The roll-ups, the finer one first.
    pub const ROLLS: [Kind; 2] = [Kind::Roll5m, Kind::Roll1h];

    /// The length of a roll-up's buckets; of samples, that of their times.
    pub fn bucket_ms(self) -> i64 {
        match self {
            Kind::Day | Kind::Hours => 1,
            Kind::Roll5m => 300_000,
            Kind::Roll1h => 3_600_000,
        }
    }

    /// Whether it holds roll-ups.
    pub fn is_roll(self) -> bool {
        matches!(self, Kind::Roll5m | Kind::Roll1h)
    }

    /// Whether its files are written once and never changed.
    pub fn is_frozen(self) -> bool {
        self != Kind::Hours
    }

    fn prefix(self) -> &'static str {
        match self {
            Kind::Day => "day-",
            Kind::Hours => "l0-",
            Kind::Roll5m => "roll5m-",
            Kind::Roll1h => "roll1h-",
        }
    }

    /// The name of the file for the UTC day that holds this second.
    pub fn file_name(self, second: u32) -> String {
        let at =
            jiff::Timestamp::from_second(second.into()).expect("32 bits of seconds are in range");
        format!("{}{}.redb", self.prefix(), at.strftime("%Y%m%d"))
    }

    /// The kind and the first second of the day that a file's name says; `None`
    /// for other names.
    pub fn parse(file_name: &str) -> Option<(Kind, u32)> {
        Kind::ALL.iter().find_map(|kind| {
            let date = file_name
                .strip_prefix(kind.prefix())?
                .strip_suffix(".redb")?;
            let day = jiff::civil::Date::strptime("%Y%m%d", date).ok()?;
            let start = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
            let second = u32::try_from(start.timestamp().as_second()).ok()?;
            (kind.file_name(second) == file_name).then_some((*kind, second))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u32 = 1_767_225_600;

    #[test]
    fn names_and_days_belong_together() {
        for (kind, name) in [
            (Kind::Hours, "l0-20260101.redb"),
            (Kind::Day, "day-20260101.redb"),
            (Kind::Roll5m, "roll5m-20260101.redb"),
            (Kind::Roll1h, "roll1h-20260101.redb"),
        ] {
            assert_eq!(kind.file_name(DAY_S), name);
            assert_eq!(kind.file_name(DAY_S + 86_399), name);
            assert_eq!(Kind::parse(name), Some((kind, DAY_S)));
        }
        for other in [
            "l0-2026011.redb",
            "l0-20260132.redb",
            "day-20260101.redb.new",
            "day-20260101",
            "l0-+2260101.redb",
            "hot.redb",
        ] {
            assert_eq!(Kind::parse(other), None, "{other}");
        }
    }
}
