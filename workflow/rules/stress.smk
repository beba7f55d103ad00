rule stress:
    input:
        notebook="notebooks/3_stress.ipynb",
        package=package("inference", "reliability", "stages/stress.py", "figures"),
        checkpoint=checkpoint,
    output:
        report="results/{run}/reports/stress_report.json",
        separation=report(
            "results/{run}/figures/posterior_failure_mode_separation.png",
            caption="../report/separation.rst",
            category="3 stress",
            labels={"model": "{run}", "figure": "separation"},
        ),
        worst=report(
            "results/{run}/figures/posterior_worst_stress_trace.png",
            caption="../report/worst.rst",
            category="3 stress",
            labels={"model": "{run}", "figure": "worst case"},
        ),
        severity=report(
            "results/{run}/figures/posterior_against_severity.png",
            caption="../report/severity.rst",
            category="3 stress",
            labels={"model": "{run}", "figure": "severity"},
        ),
        notebook="results/{run}/notebooks/3_stress.ipynb",
    log:
        notebook="results/{run}/logs/3_stress.ipynb",
        text="results/{run}/logs/3_stress.log",
    conda:
        "../../environment.yml"
    resources:
        kernels=1,
    params:
        model_id=model_of,
        settings=settings("stress"),
        checkpoint=checkpoint_folder,
    message:
        "{wildcards.run}: stress the posterior"
    shell:
        notebook("-r checkpoint {params.checkpoint:q}")
