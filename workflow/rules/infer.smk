rule infer:
    input:
        unpack(measurement),
        notebook="notebooks/5_infer.ipynb",
        package=PACKAGE,
        checkpoint=checkpoint,
        guardrail="results/{model_id}/reports/posterior_failure_mode_report.json",
    output:
        report="results/{model_id}/reports/infer_{name}.json",
        figure=report(
            "results/{model_id}/figures/infer_{name}.png",
            caption="../report/infer.rst",
            category="5 infer",
            labels={"model": "{model_id}", "measurement": "{name}"},
        ),
        notebook="results/{model_id}/notebooks/5_infer_{name}.ipynb",
    log:
        notebook="results/{model_id}/logs/5_infer_{name}.ipynb",
        text="results/{model_id}/logs/5_infer_{name}.log",
    conda:
        "../../environment.yml"
    resources:
        kernels=1,
    params:
        settings=settings("infer", without=["trace", "meta"]),
        checkpoint=checkpoint_folder,
        trace=lambda wildcards: measurement_paths(wildcards)[0],
    message:
        "{wildcards.model_id}: infer {params.trace}"
    shell:
        notebook(
            "-r trace {params.trace:q} -r meta {input.meta:q}"
            " -r checkpoint {params.checkpoint:q} -r guardrail_file {input.guardrail:q}"
            " -r report_file {output.report:q} -r figure_file {output.figure:q}"
        )


rule measurement:
    input:
        expand(
            "results/{model_id}/notebooks/5_infer_{name}.html",
            model_id=config["models"],
            name=trace_name(),
        ),
