//! Draws the figures as SVG charts.

use std::error::Error;
use std::path::Path;

use plotters::coord::ranged1d::{IntoSegmentedCoord, SegmentValue};
use plotters::prelude::*;
use strict_rate_limiter_core::limit::saturating_ns;

use crate::peers::PEERS;
use crate::report::Figures;
use crate::strictness::{Arrivals, Latency, PER, RATE};
use crate::utilisation::PERIODS;

type Drawn = Result<(), Box<dyn Error>>;

const OURS: RGBColor = RGBColor(0, 114, 178);
const LIMIT: RGBColor = RGBColor(200, 30, 30);
/// Colours that colour-blind readers can distinguish.
const OTHERS: [RGBColor; 7] = [
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(150, 140, 40),
    RGBColor(110, 110, 110),
];

/// Draws all charts into a folder.
pub(crate) fn draw(figures: &Figures, folder: &Path) -> Drawn {
    glance(figures, &folder.join("glance.svg"))?;
    strictness(figures, &folder.join("strictness.svg"))?;
    utilisation(figures, &folder.join("utilisation.svg"))?;
    cost(figures, &folder.join("cost.svg"))
}

/// The number of calls in the window that ends at each time.
fn window_over_time(counted_ns: &[u64]) -> Vec<(f64, f64)> {
    let per_ns = saturating_ns(PER);
    // Each call enters the window when it is counted, and leaves it just after a period.
    let comes = counted_ns.iter().map(|at| (*at, 1.0));
    let goes = counted_ns.iter().map(|at| (*at + per_ns + 1, -1.0));
    let mut changes: Vec<(u64, f64)> = comes.chain(goes).collect();
    changes.sort_by_key(|(at, _)| *at);
    let mut held = 0.0;
    let mut points = vec![(0.0, 0.0)];
    for (at, change) in changes {
        let at = at as f64 / 1e9;
        points.push((at, held));
        held += change;
        points.push((at, held));
    }
    points
}

/// The server's window over time, for ours and two peers.
fn glance(figures: &Figures, path: &Path) -> Drawn {
    let latency = Latency::ALL.into_iter().rfind(|latency| {
        *latency != Latency::HeavyTailed && figures.worst(PEERS[0].name, *latency).is_some()
    });
    let shown = ["strict-rate-limiter, 16 at once", "governor `until_ready`", "tower `rate_limit`"];
    assert!(shown.iter().all(|shown| PEERS.iter().any(|peer| peer.name == *shown)));
    let series = shown.map(|peer| {
        let run = figures.strictness.iter().find(|seen| {
            seen.peer == peer && Some(seen.latency) == latency && seen.arrivals == Arrivals::AtOnce
        });
        (peer, run.map(|run| window_over_time(&run.counted_ns)).unwrap_or_default())
    });
    let points = || series.iter().flat_map(|(_, points)| points);
    let until = points().map(|(at, _)| *at).fold(0.1, f64::max);
    let most = points().map(|(_, held)| *held).fold(f64::from(RATE), f64::max) * 1.15;

    let root = SVGBackend::new(path, (960, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let delay = latency.map_or("", Latency::name);
    let caption =
        format!("Calls in the server's last {PER:?} (limit {RATE}), calls delayed {delay}");
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..until, 0.0..most)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("seconds")
        .y_desc("calls")
        .draw()?;
    for ((peer, points), colour) in series.iter().zip([OURS, OTHERS[0], OTHERS[1]]).rev() {
        let width = if colour == OURS { 3 } else { 1 };
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(width)))?
            .label(peer.replace('`', ""))
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(3))
            });
    }
    let limit = [(0.0, f64::from(RATE)), (until, f64::from(RATE))];
    chart
        .draw_series(DashedLineSeries::new(limit, 8, 5, LIMIT.stroke_width(2)))?
        .label("the limit")
        .legend(|(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], LIMIT.stroke_width(2)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

/// The height of a peer's row in the next chart, in pixels.
const ROW: u32 = 47;

/// The fullest window of each peer, by delay.
fn strictness(figures: &Figures, path: &Path) -> Drawn {
    let latencies: Vec<Latency> = Latency::ALL
        .into_iter()
        .filter(|latency| figures.worst(PEERS[0].name, *latency).is_some())
        .collect();
    let most = figures.strictness.iter().map(|seen| seen.of_limit).fold(1.0, f64::max) * 1.1;
    let root = SVGBackend::new(path, (960, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Fullest window that the server saw, over the limit", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(330)
        .build_cartesian_2d(0.0..most, (0..PEERS.len()).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(PEERS.len())
        .y_label_formatter(&|place| peer_at(place))
        .draw()?;
    for (which, latency) in latencies.iter().enumerate() {
        let colour = [OURS, OTHERS[0], OTHERS[1], OTHERS[2]][which];
        let bars = PEERS.iter().enumerate().filter_map(|(row, peer)| {
            let worst = figures.worst(peer.name, *latency)?;
            let place = SegmentValue::Exact(PEERS.len() - 1 - row);
            let mut bar = Rectangle::new(
                [(0.0, place), (worst, SegmentValue::Exact(PEERS.len() - row))],
                colour.filled(),
            );
            // The bars of a peer share its row, with a gap to the next peer.
            let each = (ROW - 8) / latencies.len() as u32;
            let above = 4 + which as u32 * each;
            bar.set_margin(above, ROW - above - each + 1, 0, 0);
            Some(bar)
        });
        chart
            .draw_series(bars)?
            .label(latency.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    }
    let (bottom, top) = (SegmentValue::Exact(0), SegmentValue::Exact(PEERS.len()));
    chart.draw_series([PathElement::new([(1.0, bottom), (1.0, top)], LIMIT.stroke_width(2))])?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

fn peer_at(place: &SegmentValue<usize>) -> String {
    match place {
        SegmentValue::Exact(row) | SegmentValue::CenterOf(row) if *row < PEERS.len() => {
            PEERS[PEERS.len() - 1 - row].name.replace('`', "")
        }
        _ => String::new(),
    }
}

/// How much of a limit each peer uses, by period.
fn utilisation(figures: &Figures, path: &Path) -> Drawn {
    let most = figures.utilisation.iter().map(|used| used.used.median).fold(1.0, f64::max) * 1.1;
    let (first, last) = (PERIODS[0].0 as f64, PERIODS[PERIODS.len() - 1].0 as f64);
    let root = SVGBackend::new(path, (960, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            "Throughput under a binding limit, over a full window a period",
            ("sans-serif", 20),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d((first..last).log_scale(), 0.0..most)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|per_ms| format!("{per_ms:.0}"))
        .x_desc("period in ms")
        .draw()?;
    let mut others = OTHERS.iter();
    for peer in PEERS {
        let colour = if peer.name == PEERS[0].name {
            OURS
        } else if peer.is_ours {
            RGBColor(0, 60, 110)
        } else {
            *others.next().unwrap_or(&BLACK)
        };
        let points = figures.utilisation.iter().filter(|used| used.peer == peer.name);
        let points: Vec<(f64, f64)> =
            points.map(|used| (used.per_ms as f64, used.used.median)).collect();
        let width = if peer.is_ours { 3 } else { 1 };
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(width)).point_size(3))?
            .label(peer.name.replace('`', ""))
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(3))
            });
    }
    let limit = [(first, 1.0), (last, 1.0)];
    chart.draw_series(DashedLineSeries::new(limit, 8, 5, LIMIT.stroke_width(1)))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

/// What one task costs.
fn cost(figures: &Figures, path: &Path) -> Drawn {
    let costs = &figures.alone;
    let most = costs.iter().map(|cost| cost.ns.median).fold(1.0, f64::max) * 1.1;
    let root = SVGBackend::new(path, (960, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let label = |place: &SegmentValue<usize>| match place {
        SegmentValue::Exact(row) | SegmentValue::CenterOf(row) if *row < costs.len() => {
            costs[costs.len() - 1 - row].name.replace('`', "")
        }
        _ => String::new(),
    };
    let mut chart = ChartBuilder::on(&root)
        .caption("One task where nothing limits it, nanoseconds", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(330)
        .build_cartesian_2d(0.0..most, (0..costs.len()).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(costs.len())
        .y_label_formatter(&label)
        .draw()?;
    chart.draw_series(costs.iter().enumerate().map(|(row, cost)| {
        let colour = if row == 0 { OURS } else { OTHERS[6] };
        let row = costs.len() - 1 - row;
        let corners =
            [(0.0, SegmentValue::Exact(row)), (cost.ns.median, SegmentValue::Exact(row + 1))];
        let mut bar = Rectangle::new(corners, colour.filled());
        bar.set_margin(5, 5, 0, 0);
        bar
    }))?;
    root.present()?;
    Ok(())
}
