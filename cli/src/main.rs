//! placeholder
mod commands;
mod demo_data;
mod in_process;
mod local;

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let t = tidegate_common::clock::monotonic();
    match commands::demo::run(std::path::Path::new("tidegate-demo"), |s| {
        eprintln!(
            "{} {} {:?} {:?}",
            s.name,
            s.state,
            s.sources.iter().map(|s| (s.rows_read, s.paused)).collect::<Vec<_>>(),
            s.read_watermark.map(tidegate_common::time::EventTime::from_micros)
        );
    })
    .await
    {
        Ok(demo) => {
            println!("{}", commands::demo::comparison(&demo));
            println!(
                "{:#?}",
                demo.aligned
                    .outputs
                    .iter()
                    .map(|o| (&o.name, o.rows_committed, o.files_committed, o.commits))
                    .collect::<Vec<_>>()
            );
            println!("{:?}", demo.aligned.failure);
            println!("{:?}", demo.free.failure);
            println!("{:?}", tidegate_common::clock::monotonic().since(t));
        }
        Err(error) => println!("{error:?}"),
    }
}
