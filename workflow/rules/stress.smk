rule stress:
    input:
        notebook="notebooks/3_stress.ipynb",
        package=PACKAGE,
        checkpoint=checkpoint,
    output:
        report="results/{model_id}/reports/stress_report.json",
        separation=report(
            "results/{model_id}/figures/posterior_failure_mode_separation.png",
            caption="../report/separation.rst",
            category="3 stress",
            labels={"model": "{model_id}", "figure": "separation"},
        ),
        worst=report(
            "results/{model_id}/figures/posterior_worst_stress_trace.png",
            caption="../report/worst.rst",
            category="3 stress",
            labels={"model": "{model_id}", "figure": "worst trace"},
        ),
        severity=report(
            "results/{model_id}/figures/posterior_against_severity.png",
            caption="../report/severity.rst",
            category="3 stress",
            labels={"model": "{model_id}", "figure": "severity"},
        ),
        notebook="results/{model_id}/notebooks/3_stress.ipynb",
    log:
        notebook="results/{model_id}/logs/3_stress.ipynb",
        text="results/{model_id}/logs/3_stress.log",
    conda:
        "../../environment.yml"
    resources:
        kernels=1,
    params:
        settings=settings("stress"),
        checkpoint=checkpoint_folder,
    message:
        "{wildcards.model_id}: stress the posterior"
    shell:
        notebook(
            "-r checkpoint {params.checkpoint:q} -r report_file {output.report:q}"
            " -r separation_file {output.separation:q} -r worst_file {output.worst:q}"
            " -r severity_file {output.severity:q}"
            " -r traces_folder results/{wildcards.model_id}/traces"
        )
