//! Pictures of figures: percentile curves, lines and bars, in SVG. Just what reports need.

use std::fmt::Write as _;

use crate::histogram::digits;

/// Width of a picture and height of a chart of lines, in pixels.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
/// Around what is drawn: room for titles and the texts of the axes.
const LEFT: f64 = 76.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 44.0;
/// Height of a bar with its gap, and where bars begin: after their names.
const BAR: f64 = 26.0;
const BARS_LEFT: f64 = 300.0;
/// Colours that people of every kind of sight tell apart (Okabe and Ito), the strong ones first.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
/// A vertical axis whose longest value is so many times its shortest is logarithmic: the short ones would lie on the ground.
const LOGARITHMIC_FROM: f64 = 30.0;

/// A named line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// A named value.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    name: String,
    value: f64,
}

/// Something to draw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Chart {
    /// Points are percentiles and values. The axis stretches what is near 100 %, which is where it becomes interesting.
    Percentiles { title: String, series: Vec<Series> },
    /// Points are x and y.
    Lines { title: String, x: String, y: String, series: Vec<Series> },
    /// Lying bars, from 0.
    Bars { title: String, bars: Vec<Bar> },
}

impl Series {
    /// A line through these points, which come in the order of their x.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points }
    }
}

impl Bar {
    /// A bar of this length.
    pub fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value }
    }
}

/// All charts below each other, with a title above and lines of text below them.
pub(crate) fn draw(title: &str, charts: &[Chart], below: &[String]) -> String {
    let mut canvas = Canvas { body: String::new(), y: 0.0 };
    canvas.text(WIDTH / 2.0, 26.0, "middle", "font-weight='bold' font-size='15'", title);
    canvas.y = 36.0;
    for chart in charts {
        match chart {
            Chart::Percentiles { title, series } => canvas.percentiles(title, series),
            Chart::Lines { title, x, y, series } => canvas.lines(title, x, y, series),
            Chart::Bars { title, bars } => canvas.bars(title, bars),
        }
    }
    for line in below {
        canvas.y += 16.0;
        canvas.text(LEFT, 0.0, "start", "fill='#555' font-size='11'", line);
    }
    let height = canvas.y + 14.0;
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' \
         font-family='sans-serif' font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n{}</svg>\n",
        canvas.body
    )
}

/// From values to pixels.
struct Axis {
    from: f64,
    to: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    /// From 0, or for values far apart from the decade of the least one.
    fn of(values: impl Iterator<Item = f64>, may_be_logarithmic: bool) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite()) {
            least = if value > 0.0 { least.min(value) } else { least };
            most = most.max(value);
        }
        if may_be_logarithmic && least.is_finite() && most / least > LOGARITHMIC_FROM {
            let (from, to) = (least.log10().floor(), most.log10().ceil());
            let mut ticks = Vec::new();
            let mut exponent = from;
            while exponent <= to {
                ticks.push(10_f64.powf(exponent));
                exponent += 1.0;
            }
            return Self { from: 10_f64.powf(from), to: 10_f64.powf(to), logarithmic: true, ticks };
        }
        let most = if most > 0.0 { most } else { 1.0 };
        let step = step(most);
        let mut ticks = vec![0.0];
        while ticks.last().is_some_and(|last| *last < most) {
            ticks.push(step * ticks.len() as f64);
        }
        Self { from: 0.0, to: *ticks.last().unwrap_or(&1.0), logarithmic: false, ticks }
    }

    /// Where a value is between the ends, 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        share.clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, so that it takes four to ten steps.
fn step(most: f64) -> f64 {
    let decade = 10_f64.powf(most.log10().floor());
    let by = match most / decade {
        times if times < 2.0 => 0.2,
        times if times < 5.0 => 0.5,
        _ => 1.0,
    };
    decade * by
}

/// Where a percentile is: 90, 99, 99.9 % … are at equal distances.
fn nines(percent: f64) -> f64 {
    // 100 % is as far as the last curve goes: seven nines would be ten million times.
    -(1.0 - percent / 100.0).max(1e-7).log10()
}

struct Canvas {
    body: String,
    /// How far down it has come.
    y: f64,
}

impl Canvas {
    // Writing to memory does not fail.
    fn text(&mut self, x: f64, dy: f64, anchor: &str, more: &str, text: &str) {
        let y = self.y + dy;
        let _ =
            writeln!(self.body, "<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}' {more}>{}</text>", escaped(text));
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(self.body, "<line x1='{x1:.1}' y1='{y1:.1}' x2='{x2:.1}' y2='{y2:.1}' stroke='#ddd'/>");
    }

    fn title(&mut self, title: &str) {
        self.text(LEFT, 20.0, "start", "font-weight='bold'", title);
    }

    fn percentiles(&mut self, title: &str, series: &[Series]) {
        // Up to the last point that is one: the last but one of a curve, as 100 % is infinitely far.
        let most = series.iter().flat_map(|each| &each.points).map(|point| point.0).filter(|percent| *percent < 100.0);
        let most = most.map(nines).fold(1.0, f64::max);
        let x = |percent: f64| nines(percent).min(most) / most;
        let marks = [
            (0.0, "0"),
            (50.0, "50"),
            (90.0, "90"),
            (99.0, "99"),
            (99.9, "99.9"),
            (99.99, "99.99"),
            (99.999, "99.999"),
        ];
        let marks: Vec<_> = marks.into_iter().filter(|(percent, _)| nines(*percent) <= most).collect();
        let marks: Vec<_> = marks.into_iter().map(|(percent, text)| (x(percent), text.to_owned())).collect();
        self.plot(title, ("percentile", "ms"), &marks, series, true, x);
    }

    fn lines(&mut self, title: &str, x_name: &str, y_name: &str, series: &[Series]) {
        let axis = Axis::of(series.iter().flat_map(|each| &each.points).map(|point| point.0), false);
        let marks: Vec<_> = axis.ticks.iter().map(|tick| (axis.at(*tick), short(*tick))).collect();
        self.plot(title, (x_name, y_name), &marks, series, false, |value| axis.at(value));
    }

    /// Lines in a frame. `marks` are those of the x axis; `x` says where a point is on it, 0 to 1.
    fn plot(
        &mut self,
        title: &str,
        (x_name, y_name): (&str, &str),
        marks: &[(f64, String)],
        series: &[Series],
        may_be_logarithmic: bool,
        x: impl Fn(f64) -> f64,
    ) {
        self.title(title);
        let axis = Axis::of(series.iter().flat_map(|each| &each.points).map(|point| point.1), may_be_logarithmic);
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let (top, bottom) = (self.y + TOP, self.y + TOP + height);
        let place = |share: f64| LEFT + share * width;
        for tick in &axis.ticks {
            let y = bottom - axis.at(*tick) * height;
            self.line((LEFT, y), (LEFT + width, y));
            self.text(LEFT - 6.0, y - self.y + 4.0, "end", "", &short(*tick));
        }
        for (share, text) in marks {
            self.line((place(*share), top), (place(*share), bottom));
            self.text(place(*share), TOP + height + 16.0, "middle", "", text);
        }
        self.text(LEFT + width / 2.0, HEIGHT - 10.0, "middle", "fill='#555'", x_name);
        self.text(LEFT - 6.0, TOP - 10.0, "end", "fill='#555'", y_name);
        for (number, (each, colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let mut points = String::new();
            for (at, value) in &each.points {
                let _ = write!(points, "{:.1},{:.1} ", place(x(*at)), bottom - axis.at(*value) * height);
            }
            let _ = writeln!(
                self.body,
                "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2'/>",
                points.trim_end()
            );
            let legend = TOP + 14.0 + 16.0 * number as f64;
            self.text(LEFT + 10.0, legend, "start", &format!("fill='{colour}' font-weight='bold'"), &each.name);
        }
        self.y += HEIGHT;
    }

    fn bars(&mut self, title: &str, bars: &[Bar]) {
        self.title(title);
        let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
        // Room for the number after the longest.
        let width = WIDTH - BARS_LEFT - RIGHT - 70.0;
        for (number, (bar, colour)) in bars.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let dy = 32.0 + BAR * number as f64;
            let (y, length) = (self.y + dy, if most > 0.0 { bar.value.max(0.0) / most * width } else { 0.0 });
            let _ = writeln!(
                self.body,
                "<rect x='{BARS_LEFT}' y='{y:.1}' width='{length:.1}' height='{:.1}' fill='{colour}'/>",
                BAR - 8.0
            );
            self.text(BARS_LEFT - 8.0, dy + 13.0, "end", "", &bar.name);
            self.text(BARS_LEFT + length + 6.0, dy + 13.0, "start", "", &digits(bar.value));
        }
        self.y += 44.0 + BAR * bars.len() as f64;
    }
}

/// A number of an axis: no more digits than it has.
fn short(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_goes_from_nothing_in_round_steps_past_the_most() {
        for (most, last, count) in [(7.3, 8.0, 9), (0.13, 0.14, 8), (1_000.0, 1_000.0, 6), (43.0, 45.0, 10)] {
            let axis = Axis::of([most / 2.0, most].into_iter(), false);
            assert!((axis.to - last).abs() < 1e-9, "{most}: {}", axis.to);
            assert_eq!(axis.ticks.len(), count, "{most}: {:?}", axis.ticks);
            assert!(axis.at(0.0).abs() < 1e-9 && (axis.at(axis.to) - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn values_far_apart_are_drawn_by_their_decades() {
        let axis = Axis::of([0.3, 2.0, 45.0].into_iter(), true);
        assert!(axis.logarithmic);
        assert_eq!(axis.ticks.len(), 4, "{:?}", axis.ticks);
        assert!((axis.at(1.0) - 1.0 / 3.0).abs() < 1e-9 && axis.at(0.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_to_draw_is_no_error() {
        let charts = [
            Chart::Percentiles { title: "p".to_owned(), series: vec![Series::new("none", Vec::new())] },
            Chart::Lines { title: "l".to_owned(), x: "x".to_owned(), y: "y".to_owned(), series: Vec::new() },
            Chart::Bars { title: "b".to_owned(), bars: vec![Bar::new("zero", 0.0)] },
        ];
        let svg = draw("nothing", &charts, &[]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn every_nine_takes_as_much_room_as_the_one_before() {
        let steps: Vec<f64> = [0.0, 90.0, 99.0, 99.9].windows(2).map(|pair| nines(pair[1]) - nines(pair[0])).collect();
        assert!(steps.iter().all(|step| (step - 1.0).abs() < 1e-6), "{steps:?}");
        assert!(nines(100.0).is_finite());
    }

    #[test]
    fn what_is_drawn_is_well_formed() {
        let curve = Series::new("a < b", vec![(0.0, 0.1), (50.0, 0.2), (99.0, 3.0), (100.0, 9.0)]);
        let svg =
            draw("t & u", &[Chart::Percentiles { title: "x".to_owned(), series: vec![curve] }], &["below".to_owned()]);
        assert!(svg.contains("a &lt; b") && svg.contains("t &amp; u") && svg.contains("below"));
        for tag in ["text", "svg"] {
            let (open, close) = (svg.matches(&format!("<{tag} ")).count(), svg.matches(&format!("</{tag}>")).count());
            assert_eq!(open, close, "{tag}");
        }
        assert_eq!(svg.matches("<polyline").count(), 1);
    }
}
