rule notebook_html:
    input:
        script="workflow/scripts/notebook_html.py",
        notebook="{folder}/notebooks/{stem}.ipynb",
        template="workflow/report/notebook.html.j2",
        style="workflow/report/style.css",
    output:
        "{folder}/notebooks/{stem}.html",
    log:
        "{folder}/logs/{stem}_html.log",
    conda:
        "../../environment.yml"
    message:
        "Render {output}"
    shell:
        "python workflow/scripts/notebook_html.py {input.notebook:q} {input.template:q}"
        " {input.style:q} {output:q} 2>&1 | tee {log:q}"


rule report:
    input:
        script="workflow/scripts/report.py",
        notebooks=[
            f"{stem}.html"
            for model_id in config["models"]
            for stem in stage_notebooks(model_id)
        ],
        guardrail=expand(
            "results/{model_id}/reports/posterior_failure_mode_report.json",
            model_id=config["models"],
        ),
        infer=expand(
            "results/{model_id}/reports/infer_{name}.json",
            model_id=config["models"],
            name=trace_name(),
        ),
        template="workflow/report/report.html.j2",
        style="workflow/report/style.css",
        package=PACKAGE,
    output:
        "results/report.html",
    log:
        "results/logs/report.log",
    conda:
        "../../environment.yml"
    params:
        name=trace_name(),
    message:
        "Write {output}"
    shell:
        "python workflow/scripts/report.py {input.template:q} {input.style:q} {output:q}"
        " {params.name:q} {input.notebooks:q} 2>&1 | tee {log:q}"
