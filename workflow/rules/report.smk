rule notebook_html:
    input:
        script="workflow/scripts/notebook_html.py",
        notebook="{folder}/notebooks/{stem}.ipynb",
        template="workflow/report/notebook.html.j2",
        style="src/touchstone/templates/style.css",
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
        " {input.style:q} {output:q} > {log:q} 2>&1"


rule report:
    input:
        script="workflow/scripts/report.py",
        notebooks=[
            f"{stem}.html"
            for model_id in config["models"]
            for stem in stage_notebooks(model_id)
        ],
        reports=[
            report
            for model_id in config["models"]
            for report in page_reports(model_id)
        ],
        figures=[
            figure
            for model_id in config["models"]
            for figure in page_figures(model_id)
        ],
        template="workflow/report/report.html.j2",
        style="src/touchstone/templates/style.css",
        stages=expand(
            "src/touchstone/stages/{name}.py", name=["evidence", "history", "summary"]
        ),
    output:
        "results/report.html",
    log:
        "results/logs/report.log",
    conda:
        "../../environment.yml"
    message:
        "Write {output}"
    shell:
        "python workflow/scripts/report.py {input.template:q} {input.style:q} {output:q}"
        " {input.notebooks:q} > {log:q} 2>&1"
