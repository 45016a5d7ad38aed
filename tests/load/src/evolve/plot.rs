//! The curves as a picture.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    chart::{ChartBuilder, SeriesLabelPosition},
    drawing::IntoDrawingArea as _,
    element::{PathElement, Polygon},
    prelude::SVGBackend,
    series::LineSeries,
    style::{Color as _, RGBColor, WHITE},
};

use super::books::{Books, Mean};

const COLOURS: [RGBColor; 3] =
    [RGBColor(0, 90, 160), RGBColor(220, 140, 0), RGBColor(120, 120, 120)];

/// One curve: its name and its points.
type Curve<'a> = (&'a str, Vec<(f64, Mean)>);

/// Writes both pictures, over generations and over calls, into one file.
pub fn write(file: &Path, books: &[(&str, &Books)], calls: u32) -> Result<()> {
    let generations = |books: &Books| {
        let curve = books.by_generation();
        curve.into_iter().enumerate().map(|(at, mean)| (at as f64, mean)).collect::<Vec<_>>()
    };
    let over_calls = |books: &Books| {
        let points = books.by_calls(calls).into_iter();
        points.map(|(at, mean)| (f64::from(at), mean)).collect::<Vec<_>>()
    };
    let left: Vec<Curve<'_>> = books.iter().map(|(name, b)| (*name, generations(b))).collect();
    let other: Vec<Curve<'_>> = books.iter().map(|(name, b)| (*name, over_calls(b))).collect();
    let root = SVGBackend::new(file, (1_000, 420)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", file.display());
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let parts = root.split_evenly((1, 2));
    for (area, (curves, label)) in
        parts.iter().zip([(left, "generation"), (other, "calls of the search")])
    {
        let most = curves.iter().flat_map(|(_, points)| points).map(|p| p.0).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..most, 0.0..1.0)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .x_desc(label)
            .y_desc("held-out cases that pass")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{:.0} %", y * 100.0))
            .light_line_style(WHITE)
            .draw()
            .map_err(|error| failed(&error))?;
        for ((name, points), colour) in curves.iter().zip(COLOURS) {
            let band = points
                .iter()
                .map(|(x, mean)| (*x, mean.high))
                .chain(points.iter().rev().map(|(x, mean)| (*x, mean.low)));
            chart
                .draw_series([Polygon::new(band.collect::<Vec<_>>(), colour.mix(0.15))])
                .map_err(|error| failed(&error))?;
            let line = points.iter().map(|(x, mean)| (*x, mean.mean));
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)))
                .map_err(|error| failed(&error))?
                .label(*name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.85))
            .draw()
            .map_err(|error| failed(&error))?;
    }
    root.present().map_err(|error| failed(&error))?;
    Ok(())
}
