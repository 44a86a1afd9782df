//! The server's window over time, a panel for each limiter.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::server::Counted;
use crate::{CALLS, PER, RATE, Run};

const WITHIN: RGBColor = RGBColor(0, 114, 178);
const OVER: RGBColor = RGBColor(200, 30, 30);

pub(crate) fn draw(runs: &[Run], path: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    draw_panels(runs, path).map_err(|error| error.to_string().into())
}

#[expect(clippy::cast_precision_loss, reason = "a few dozen calls")]
fn draw_panels(runs: &[Run], path: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (880, 600)).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!(
        "Calls in the server's last {} ms, of {RATE} allowed: {CALLS} calls through each limiter",
        PER.as_millis()
    );
    let area = root.titled(&title, ("sans-serif", 18))?;
    let longest = runs.iter().flat_map(|run| &run.counted).map(|call| call.at.as_secs_f64());
    let until = longest.fold(0.0, f64::max) + PER.as_secs_f64();
    let highest = runs.iter().map(|run| run.fullest).max().unwrap_or_default() as f64 * 1.1;
    for (run, panel) in runs.iter().zip(area.split_evenly((runs.len(), 1))) {
        let said = match run.refused {
            0 => format!("{}: no call refused", run.name),
            refused => format!("{}: {refused} calls refused with 429", run.name),
        };
        let mut chart = ChartBuilder::on(&panel)
            .caption(said, ("sans-serif", 15))
            .margin_right(16)
            .x_label_area_size(28)
            .y_label_area_size(40)
            .build_cartesian_2d(0.0..until, 0.0..highest)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(5)
            .x_label_formatter(&|seconds| format!("{seconds:.1} s"))
            .y_label_formatter(&|calls| format!("{calls:.0}"))
            .draw()?;
        chart
            .draw_series(LineSeries::new(window_over_time(&run.counted), WITHIN.stroke_width(2)))?;
        let limit = f64::from(RATE);
        chart.draw_series(LineSeries::new([(0.0, limit), (until, limit)], OVER))?;
        let refused = run.counted.iter().filter(|call| call.refused);
        // A mark on the axis for each call that was refused.
        chart.draw_series(refused.map(|call| {
            let at = call.at.as_secs_f64();
            PathElement::new([(at, 0.0), (at, highest * 0.08)], OVER)
        }))?;
    }
    root.present()?;
    Ok(())
}

/// How many calls the closed window that ends at each moment holds.
fn window_over_time(counted: &[Counted]) -> Vec<(f64, f64)> {
    let comes = counted.iter().map(|call| (call.at, 1.0_f64));
    let goes = counted.iter().map(|call| (call.at + PER, -1.0));
    let mut changes: Vec<_> = comes.chain(goes).collect();
    // What comes at an instant is in the window before what goes has left it.
    changes.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.total_cmp(&one.1)));
    let mut held = 0.0;
    let mut points = vec![(0.0, 0.0)];
    for (at, change) in changes {
        points.push((at.as_secs_f64(), held));
        held += change;
        points.push((at.as_secs_f64(), held));
    }
    points
}
