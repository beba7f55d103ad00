rule guardrail:
    input:
        notebook="notebooks/4_guardrail.ipynb",
        package=PACKAGE,
        stress="results/{model_id}/reports/stress_report.json",
    output:
        report="results/{model_id}/reports/posterior_failure_mode_report.json",
        figure=report(
            "results/{model_id}/figures/guardrail.png",
            caption="../report/guardrail.rst",
            category="4 guardrail",
            labels={"model": "{model_id}"},
        ),
        notebook="results/{model_id}/notebooks/4_guardrail.ipynb",
    log:
        notebook="results/{model_id}/logs/4_guardrail.ipynb",
        text="results/{model_id}/logs/4_guardrail.log",
    conda:
        "../../environment.yml"
    resources:
        kernels=1,
    params:
        settings=settings("guardrail", alpha=config["alpha"]),
    message:
        "{wildcards.model_id}: fit and score the guardrail"
    shell:
        notebook(
            "-r stress_file {input.stress:q} -r report_file {output.report:q}"
            " -r figure_file {output.figure:q}"
        )
