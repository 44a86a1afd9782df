//! Draws an audit: an SVG chart of the window over time, and an HTML page with the chart and all results.

use askama::Template;
use plotters::prelude::*;
use strict_rate_limiter::Limit;
use strict_rate_limiter::audit::{Record, Verdict, over_time};

use super::report::{LimitReport, Report, verdict_text};
use super::times::{show, show_length};
use crate::display::counted;

/// The number of columns of a chart. Each shows the highest value within it.
const COLUMNS: usize = 800;
const LISTED: usize = 10;

/// The number of characters of a log's name that fit above a chart.
const NAME_MAX: usize = 60;

const WITHIN: RGBColor = RGBColor(0, 114, 178);
const OVER: RGBColor = RGBColor(200, 30, 30);

/// The units in the window during a column of the chart: the most, and at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ChartColumn {
    most: u128,
    last: u128,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Page<'a> {
    report: &'a Report,
    begin: String,
    took: String,
    chart: String,
    limits: Vec<LimitSection>,
    waits: Vec<PageRow>,
    nothing_ran: String,
    waited: String,
}

struct LimitSection {
    limit: String,
    /// The verdict, and its CSS class.
    verdict: &'static str,
    class: &'static str,
    fullest: String,
    rate: u64,
    utilisation: String,
    worst: Vec<PageRow>,
}

/// A row of a table: a time and a text.
struct PageRow {
    when: String,
    what: String,
}

/// The chart as SVG, with a panel for each limit. The records must be widened to the error bounds and sorted by
/// start.
pub(crate) fn chart(report: &Report, records: &[Record]) -> Result<String, String> {
    let mut svg = String::new();
    draw(report, records, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

/// The HTML page.
pub(crate) fn html(report: &Report, records: &[Record]) -> Result<String, String> {
    let limits = report.limits.iter().map(|checked| LimitSection {
        limit: checked.limit.to_string(),
        verdict: verdict_text(checked.verdict),
        class: match checked.verdict {
            Verdict::Kept => "kept",
            Verdict::Broken => "broken",
            Verdict::Undecided => "undecided",
        },
        fullest: checked.fullest(),
        rate: checked.limit.rate(),
        utilisation: format!("{:.3}", checked.utilisation),
        worst: worst_windows(&checked.limit, records),
    });
    let waits = report.waits.all.iter().take(LISTED).map(|(length, since)| PageRow {
        when: show((*since).into()),
        what: show_length((*length).into()),
    });
    let page = Page {
        report,
        begin: show(report.begin_ns.into()),
        took: show_length(report.took().as_nanos()),
        chart: chart(report, records)?,
        limits: limits.collect(),
        waits: waits.collect(),
        nothing_ran: counted(report.waits.all.len() as u64, "time"),
        waited: show_length(report.waits.total_ns.into()),
    };
    page.render().map_err(|error| error.to_string())
}

/// The fullest windows that do not overlap, fullest first.
fn worst_windows(limit: &Limit, records: &[Record]) -> Vec<PageRow> {
    let per = u128::from(limit.per_ns());
    let mut peaks: Vec<(u128, u128)> = vec![];
    let mut before = 0;
    over_time(limit, records, |step| {
        // A peak can only be where the window has just become fuller.
        if step.units > before {
            match peaks.last_mut() {
                Some((units, at)) if step.at - *at <= per / 4 => {
                    if step.units > *units {
                        (*units, *at) = (step.units, step.at);
                    }
                }
                _ => peaks.push((step.units, step.at)),
            }
        }
        before = step.units;
    })
    .expect("no record that was read ends before it starts");
    peaks.sort_unstable_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
    let mut chosen: Vec<(u128, u128)> = vec![];
    for (units, at) in peaks {
        if chosen.len() == LISTED {
            break;
        }
        if chosen.iter().all(|(_, other)| at.abs_diff(*other) > per) {
            chosen.push((units, at));
        }
    }
    let row = |(units, at): (u128, u128)| PageRow {
        when: show(at.cast_signed() - i128::from(limit.per_ns())),
        what: units.to_string(),
    };
    chosen.into_iter().map(row).collect()
}

/// For each column from `begin` on, the units of the window that ends in it.
fn columns(limit: &Limit, records: &[Record], begin: u64, until: u128) -> Vec<ChartColumn> {
    let width = (until - u128::from(begin)).div_ceil(COLUMNS as u128).max(1);
    let mut columns: Vec<ChartColumn> = vec![];
    let mut held = 0;
    over_time(limit, records, |step| {
        let column = ((step.at - u128::from(begin)) / width) as usize;
        while columns.len() <= column {
            columns.push(ChartColumn { most: held, last: held });
        }
        held = step.units;
        columns[column] = ChartColumn { most: columns[column].most.max(held), last: held };
    })
    .expect("no record that was read ends before it starts");
    columns
}

/// A name cut to fit a title. Keeps the end, which says more than the beginning.
fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME_MAX {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length - NAME_MAX + 1).collect();
    format!("…{end}")
}

#[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "to be drawn")]
fn draw(
    report: &Report,
    records: &[Record],
    to: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let panels = report.limits.len();
    let root = SVGBackend::with_string(to, (880, 60 + 240 * panels as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let name = shortened(&report.log);
    let title = format!("{name}: {} from {}", report.tasks(), show(report.begin_ns.into()));
    let area = root.titled(&title, ("sans-serif", 17))?;
    let begin = records.first().map_or(0, |record| record.start);
    let end = records.iter().map(|record| record.end).max().unwrap_or(0);
    for (checked, panel) in report.limits.iter().zip(area.split_evenly((panels, 1))) {
        let LimitReport { limit, audit, verdict, .. } = checked;
        let until = u128::from(end) + u128::from(limit.per_ns()) + 1;
        let columns = columns(limit, records, begin, until);
        let seconds = (until - u128::from(begin)) as f64 / 1e9;
        let highest = audit.most.worst.units.max(u128::from(limit.rate())) as f64 * 1.1;
        // Enough decimals to distinguish a tenth of the chart's length.
        let decimals = (1.0 - seconds.log10()).ceil().clamp(0.0, 9.0) as usize;
        let at = |column: usize| seconds * column as f64 / columns.len() as f64;
        let caption =
            format!("{limit}: {}, fullest window {}", verdict_text(*verdict), checked.fullest());
        let mut chart = ChartBuilder::on(&panel)
            .caption(caption, ("sans-serif", 15))
            .margin_right(20)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..seconds, 0.0..highest)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(5)
            .x_label_formatter(&|at| format!("{at:.decimals$} s"))
            .y_label_formatter(&|units| format!("{units:.0}"))
            .draw()?;
        let points = columns.iter().enumerate().flat_map(|(index, column)| {
            [(at(index), column.most as f64), (at(index + 1), column.last as f64)]
        });
        chart.draw_series(LineSeries::new(points, WITHIN.stroke_width(2)))?;
        let rate = limit.rate() as f64;
        let over = columns.iter().enumerate().filter(|(_, column)| column.most as f64 > rate);
        chart.draw_series(over.map(|(index, column)| {
            PathElement::new(
                [(at(index), rate), (at(index), column.most as f64)],
                OVER.stroke_width(2),
            )
        }))?;
        chart.draw_series(LineSeries::new([(0.0, rate), (seconds, rate)], OVER))?;
    }
    root.present()?;
    drop(area);
    Ok(())
}
