//! The figures as bars, ours beside etcd's.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use crate::commits::Commits;
use crate::report::{Report, median};

const WIDTH: u32 = 900;
const ROW_HEIGHT: i32 = 52;
const TOP: i32 = 48;
/// Where bars begin, and the longest one.
const LEFT: i32 = 300;
const LONGEST: f64 = 420.0;
const OURS: RGBColor = RGBColor(31, 119, 180);
const THEIRS: RGBColor = RGBColor(150, 150, 150);

/// What is compared: by target, with the unit and whether more is better.
struct Row {
    title: String,
    unit: &'static str,
    figures: Vec<(&'static str, f64)>,
}

/// Draws all that was measured of both.
pub(crate) fn draw(report: &Report, path: &Path) -> anyhow::Result<()> {
    let rows = rows(report);
    let height = TOP + ROW_HEIGHT * i32::try_from(rows.len())? + 8;
    let area = SVGBackend::new(path, (WIDTH, u32::try_from(height)?)).into_drawing_area();
    let failed = |error: DrawingAreaErrorKind<_>| anyhow!("{error:?}");
    area.fill(&WHITE).map_err(failed)?;
    let text = |text: &str, at: (i32, i32), size: i32| {
        let style = ("sans-serif", size).into_font().color(&BLACK);
        area.draw(&Text::new(text.to_owned(), at, style)).map_err(failed)
    };
    text("Dovetail (blue) and etcd (grey): three members, mutual TLS, fsync", (16, 14), 18)?;
    for (number, row) in (0..).zip(&rows) {
        let top = TOP + ROW_HEIGHT * number;
        text(&row.title, (16, top + 12), 15)?;
        let most = row.figures.iter().map(|(_, figure)| *figure).fold(f64::MIN_POSITIVE, f64::max);
        for (bar, (target, figure)) in (0..).zip(&row.figures) {
            let top = top + bar * 20;
            let end = LEFT + (figure / most * LONGEST).round() as i32;
            let colour = if *target == "dovetail" { OURS } else { THEIRS };
            let bar = Rectangle::new([(LEFT, top), (end.max(LEFT + 1), top + 16)], colour.filled());
            area.draw(&bar).map_err(failed)?;
            text(&format!("{figure:.2} {}", row.unit), (end + 8, top + 2), 13)?;
        }
    }
    area.present().map_err(failed)?;
    Ok(())
}

fn rows(report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    let all = report.rows();
    let mut measured: Vec<_> = all.keys().map(|(work, clients, _)| (*work, *clients)).collect();
    measured.dedup();
    type Figure = fn(&Commits) -> f64;
    let figures: [(&str, &str, Figure); 3] = [
        ("per second (more is better)", "/s", |one| one.per_second),
        ("p50 (less is better)", "ms", |one| one.p50_ms),
        ("CPU each (less is better)", "µs", |one| one.cpu_us_per_command),
    ];
    for (work, clients) in measured {
        for (what, unit, figure) in figures {
            let of_target = |target| {
                let rounds = all.get(&(work, clients, target))?;
                Some((target, median(rounds.iter().map(|one| figure(one)).collect())))
            };
            let figures = ["dovetail", "etcd"].into_iter().filter_map(of_target).collect();
            rows.push(Row { title: format!("{work}, {clients} clients: {what}"), unit, figures });
        }
    }
    let failovers = || report.failovers.iter();
    let transfers = report.transfers.iter();
    for (title, figures) in [
        ("failover, median", failovers().map(|one| (one.target, one.median_ms)).collect()),
        ("failover, worst", failovers().map(|one| (one.target, one.worst_ms)).collect()),
        ("planned transfer, median", transfers.map(|one| (one.target, one.median_ms)).collect()),
    ] {
        let mut figures: Vec<_> = figures;
        figures.sort_by_key(|(target, _)| *target);
        rows.push(Row { title: format!("{title} (less is better)"), unit: "ms", figures });
    }
    rows
}
