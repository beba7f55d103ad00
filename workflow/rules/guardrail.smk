rule guardrail:
    input:
        notebook="notebooks/4_guardrail.ipynb",
        package=package(
            "reliability",
            "stages/guardrail.py",
            "stages/history.py",
            "figures",
            model=False,
        ),
        stress="results/{run}/reports/stress_report.json",
    output:
        report="results/{run}/reports/posterior_failure_mode_report.json",
        figure=report(
            "results/{run}/figures/guardrail.png",
            caption="../report/guardrail.rst",
            category="4 guardrail",
            labels={"model": "{run}"},
        ),
        roc=report(
            "results/{run}/figures/guardrail_roc.png",
            caption="../report/roc.rst",
            category="4 guardrail",
            labels={"model": "{run}"},
        ),
        notebook="results/{run}/notebooks/4_guardrail.ipynb",
    log:
        notebook="results/{run}/logs/4_guardrail.ipynb",
        text="results/{run}/logs/4_guardrail.log",
    conda:
        "../../environment.yml"
    resources:
        kernels=1,
    params:
        model_id=model_of,
        settings=settings("guardrail"),
    message:
        "{wildcards.run}: fit and score the guardrail"
    shell:
        notebook("")
