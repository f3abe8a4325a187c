//! The date, for templates that write it into the prompt.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The current date and time (UTC) in Python's `strftime` format.
pub(super) fn strftime_now(format: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    strftime(now.as_secs(), format)
}

/// Replaces the directives that need no locale, and leaves unknown directives in the text.
fn strftime(seconds: u64, format: &str) -> String {
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, date) = civil(day);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let first = civil_day(year, 1, 1);
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut directive = rest.next();
        // `%-d` is `%d` without the leading zero.
        let plain = directive == Some('-');
        if plain {
            directive = rest.next();
        }
        let number = |value: u64, width: usize| {
            if plain { value.to_string() } else { format!("{value:0width$}") }
        };
        let month_name = MONTHS[month as usize - 1];
        // 1 January 1970 was a Thursday.
        let day_name = DAYS[((day + 4) % 7) as usize];
        text.push_str(&match directive {
            Some('Y') => number(year, 4),
            Some('y') => number(year % 100, 2),
            Some('m') => number(month, 2),
            Some('d') => number(date, 2),
            Some('e') => format!("{date:2}"),
            Some('j') => number(day - first + 1, 3),
            Some('H') => number(hour, 2),
            Some('I') => number((hour + 11) % 12 + 1, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second % 60, 2),
            Some('p') => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('F') => strftime(seconds, "%Y-%m-%d"),
            Some('T') => strftime(seconds, "%H:%M:%S"),
            Some('c') => strftime(seconds, "%a %b %e %H:%M:%S %Y"),
            Some('x' | 'D') => strftime(seconds, "%m/%d/%y"),
            Some('X') => strftime(seconds, "%H:%M:%S"),
            Some('R') => strftime(seconds, "%H:%M"),
            Some('u') => ((day + 3) % 7 + 1).to_string(),
            Some('w') => ((day + 4) % 7).to_string(),
            // The number of the week, from the first Sunday or the first Monday of the year.
            Some('U') => number((day - first + 7 - (day + 4) % 7) / 7, 2),
            Some('W') => number((day - first + 7 - (day + 3) % 7) / 7, 2),
            Some('n') => "\n".to_owned(),
            Some('t') => "\t".to_owned(),
            Some('s') => seconds.to_string(),
            // Empty, as for Python's `datetime.now()`, which has no time zone.
            Some('Z' | 'z') => String::new(),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{other}"),
            None => "%".to_owned(),
        });
    }
    text
}

/// Year, month and day of the month of a day that counts from 1 January 1970 (Gregorian calendar).
fn civil(day: u64) -> (u64, u64, u64) {
    // Years begin on 1 March, so that the leap day comes last. An era has 400 years.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let date = day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + u64::from(month <= 2), month, date)
}

/// The inverse of [`civil`].
fn civil_day(year: u64, month: u64, date: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year) = (year / 400, year % 400);
    let shifted = (month + 9) % 12;
    let day = 365 * year + year / 4 - year / 100 + (153 * shifted + 2) / 5 + date - 1;
    era * 146_097 + day - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let format = "%Y-%m-%d %H:%M:%S %a %A %b %B %j %y %I %p %-d %e %F %T %% %Q";
        // 26 July 2024, 13:05:09 UTC.
        assert_eq!(
            strftime(1_721_999_109, format),
            "2024-07-26 13:05:09 Fri Friday Jul July 208 24 01 PM 26 26 2024-07-26 13:05:09 % %Q"
        );
        assert_eq!(
            strftime(1_721_999_109, "%c|%x|%X|%R|%u|%w|%U|%W|%Z%z"),
            "Fri Jul 26 13:05:09 2024|07/26/24|13:05:09|13:05|5|5|29|30|"
        );
        assert_eq!(strftime(0, "%d %b %Y, %A"), "01 Jan 1970, Thursday");
        assert_eq!(strftime(951_782_400, "%F %j"), "2000-02-29 060");
        for day in (0..60_000).step_by(7) {
            let (year, month, date) = civil(day);
            assert_eq!(civil_day(year, month, date), day);
        }
    }
}
