//! `magpie-bench` as the suites start it.

fn main() -> std::process::ExitCode {
    magpie_bench::main()
}
